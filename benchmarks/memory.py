"""Measures the memory of each phase of `compress apply`, beyond Python, torch and the imports.

    python benchmarks/memory.py
    python benchmarks/memory.py --quick
    python benchmarks/memory.py --billion

Each run is its own process on Linux, which keeps the peak of a process's resident memory (VmHWM) and lets it be
reset, here at each change of phase. The same command on a tiny network and tiny images shows what a process needs
anyway: it has imported the same packages by the same phase. The wide network, 124 million
random parameters, is `wide` below; mnist_latent gets mnist_sample, repeated up to MNIST's size.

`--billion` adds the peak of a plain training loop: a billion weights, removed softly in 3 steps of SGD by
`compress.Pruner`, in at most 24 GB.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import OrderedDict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from whole_run import stand_in

if TYPE_CHECKING:
    from torch import nn

HERE = Path(__file__).parent
REPORT = HERE.parent / "docs" / "benchmarks" / "memory.json"
AIM = 3.0
PHASES = (
    "imports",
    "data",
    "load",
    "rehearsal",
    "selection",
    "training",
    "checkpoints",
    "evaluation",
    "slim",
    "export",
    "benchmark",
)

WIDE = [
    "name=wide",
    "data.train=512",
    "data.test=512",
    "data.batch_size=32",
    "stages.0.target={weights: ['*']}",
    "stages.0.sparsity=0.9",
]
NODES = [
    *WIDE,
    "stages.0.target={nodes: ['1', '3']}",
    "stages.0.sparsity=0.5",
    "stages.0.scope=layer",
    "stages.0.criterion=magnitude",
]
SOFT, HARD = "stages.0.removal={kind: soft, over: 0.5 epochs}", "stages.0.removal={kind: hard}"
ADAMW, SGD = (
    "stages.0.retrain={epochs: 1, optimizer: adamw, lr: 1e-3}",
    "stages.0.retrain={epochs: 1, optimizer: sgd, lr: 1e-3}",
)
CASES: dict[str, tuple[str, list[str]]] = {
    "mnist_latent": ("mnist_latent", ["stages.0.retrain.epochs=1", "stages.0.removal.over=0.5 epochs"]),
    "wide, weights, hard, SGD": ("mnist_classifier", [*WIDE, HARD, SGD]),
    "wide, weights, soft, AdamW": ("mnist_classifier", [*WIDE, SOFT, ADAMW]),
    "wide, nodes, soft, AdamW": ("mnist_classifier", [*NODES, SOFT, ADAMW]),
}
"""The recipe of each case, and the changes to it."""

PEAKS = """
import json, sys
from compress.cli import main
from compress.run import clock
from compress.run import rehearse

def peak():
    with open("/proc/self/status") as file:
        kilobytes = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return kilobytes * 1024

found, charge, check = {}, clock.Clock._charge, rehearse.check

def charged(self):
    name = self._open[-1] if found else "imports"
    found[name] = max(peak(), found.get(name, 0))
    charge(self)

def checked(recipe, model, setting, *more):
    with setting.clock.phase("rehearsal"):
        check(recipe, model, setting, *more)

clock.Clock._charge, rehearse.check = charged, checked
try:
    main()
finally:
    print("peaks", json.dumps(found), file=sys.stderr)
"""


BILLION = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
import torch
from memory import STEPS, deep
import compress

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

torch.manual_seed(0)
found = {"imports": peak()}
model = deep(int(sys.argv[2]))
found["weights"] = peak()
pruner = compress.Pruner(model, sparsity=0.9, removal=compress.Soft(STEPS, "linear"))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
found["selection"] = peak()
for _ in range(STEPS):
    model(torch.randn(8, model[0].in_features)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    pruner.step()
pruner.finalize()
found["training"] = peak()
weights = sum(weight.numel() for weight in model.parameters())
zeros = weights - sum(int(weight.count_nonzero()) for weight in model.parameters())
print(json.dumps({"peak_bytes": found, "weights": weights, "zeros": zeros}))
"""
LIMIT, STEPS, DEPTH = 24 * 10**9, 3, 16


def deep(width: int = 7906) -> "nn.Module":
    """`DEPTH` layers of the same size, by default with a billion weights."""
    from torch import nn

    return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(DEPTH)))


def wide(width: int = 7680) -> "nn.Module":
    """28x28 pixels, two hidden layers of `width` and one more between them, ten classes."""
    from torch import nn

    hidden = [nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))


def tiny() -> "nn.Module":
    return wide(8)


def tiny_autoencoder() -> "nn.Module":
    from torch import nn

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.Tanh())
    decoder = nn.Sequential(nn.Tanh(), nn.Linear(4, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))
    return nn.Sequential(OrderedDict(encoder=encoder, latent=nn.Linear(8, 4), decoder=decoder))


def main(
    only: Annotated[list[str] | None, typer.Option(help="A case; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Without the wide network, which takes minutes.")] = False,
    billion: Annotated[bool, typer.Option("--billion", help="Only train a billion weights softly.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Print the peak of each phase beyond that of a tiny run, in multiples of model and data; write all as JSON."""
    earlier = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    if billion:
        earlier["billion"] = found = trained_softly(threads)
        report.write_text(json.dumps(earlier, indent=1) + "\n", encoding="utf-8")
        most = max(found["peak_bytes"].values())
        print(f"{found['weights']:,} weights, {found['zeros']:,} of them removed: {most:,} bytes")
        return
    if unknown := set(only or ()) - set(CASES):
        raise SystemExit(f"no case {', '.join(unknown)}; there are: {'; '.join(CASES)}")
    cases = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = stand_in(Path(scratch))
        for name in only or (["mnist_latent"] if quick else CASES):
            cases[name] = measured(*CASES[name], Path(scratch), root, threads)
            print(f"{name}: {cases[name]['beyond']:.2f}", file=sys.stderr)
    from compress.run.provenance import cpu_name

    document = {
        "aim": AIM,
        "machine": {"cpu": cpu_name(), "threads": threads, "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("softprune", "torch", "onnxruntime")},
        "cases": cases,
        **{name: entry for name, entry in earlier.items() if name == "billion"},
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print(f"peak beyond a tiny run, in multiples of model and data (aim {AIM:g}), {threads} thread(s)")
    print(f"{'':<30}" + "".join(f"{phase:>11}" for phase in (*PHASES[1:], "all")))
    for name, case in cases.items():
        print(
            f"{name:<30}"
            + "".join(f"{case['phases'][phase]:11.2f}" for phase in PHASES[1:])
            + f"{case['beyond']:11.2f}"
        )


def measured(recipe: str, changes: list[str], scratch: Path, root: Path, threads: int) -> dict[str, Any]:
    """Bytes of the model, of the data, of both runs' peaks by phase; and multiples of (model + data), see `beyond`."""
    from compress.data.dataset import Dataset
    from compress.files.checkpoint import write_weights
    from compress.recipe.loading import load_recipe
    from compress.run.building import build_model
    from compress.run.data_sets import build_data

    if "name=wide" in changes:
        changes = [*changes, "model={factory: 'memory:wide'}"]
    least = "tiny_autoencoder" if recipe == "mnist_latent" else "tiny"
    tiny = [*changes, f"model={{factory: 'memory:{least}'}}", "data.train=128", "data.test=64"]
    peaks = {}
    for which, settings in (("tiny", tiny), ("run", changes)):
        loaded = load_recipe(recipe, settings)
        model = scratch / f"{which}.safetensors"
        write_weights(build_model(loaded.model, loaded.seed).state_dict(), model)
        peaks[which] = peaks_of([recipe, str(model), "--data-root", str(root), *set_each(settings)], threads)
    images = build_data(loaded.data, root)
    assert isinstance(images, Dataset)
    held = sum(tensor.nbytes for part in (images.train, images.test) for tensor in (part.images, part.labels))
    unit = model.stat().st_size + held
    phases = {phase: (peaks["run"][phase] - peaks["tiny"][phase]) / unit for phase in PHASES}
    beyond = (max(peaks["run"].values()) - max(peaks["tiny"].values())) / unit
    return {
        "recipe": recipe,
        "set": changes,
        "model_bytes": model.stat().st_size,
        "data_bytes": held,
        "peak_bytes": peaks,
        "phases": phases,
        "beyond": beyond,
    }


def trained_softly(threads: int, width: int = 7906) -> dict[str, Any]:
    """Resident bytes at the peak of each part of a loop that removes 90 % of the weights of `deep` softly."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", BILLION, str(LIMIT), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE)
    if done.returncode:
        raise SystemExit(f"the loop failed: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return {"steps": STEPS, "limit_bytes": LIMIT, **found}


def set_each(changes: list[str]) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def peaks_of(arguments: list[str], threads: int) -> dict[str, int]:
    """Resident bytes at the peak of each phase of `compress apply`."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PEAKS, "apply", *arguments, "-o", f"{folder}/out", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE)
    found = re.search(r"^peaks (.*)$", done.stderr, re.MULTILINE)
    if done.returncode or found is None:
        raise SystemExit(f"apply failed: {done.stderr}")
    peaks: dict[str, int] = json.loads(found[1])
    return peaks


if __name__ == "__main__":
    typer.run(main)
