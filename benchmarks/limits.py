"""How near the parts of the package are to the machine's physical limits, and what they add to larger networks.

    python benchmarks/limits.py
    python benchmarks/limits.py --quick

The least time of a part is that of the bytes which it must move, at the bandwidth of a copy that runs before it in the
same round. `times` is how often longer the part takes: 1 is the limit. Bytes are computed from sizes:

- step: `Pruner.step` of a Linear whose weights decay. It reads and writes the weights and their float mask.
- selection: `Pruner` with `magnitude`. It reads the weights and writes their mask.
- slim: it reads the masked weights and writes the rest. Its proof calls both networks a dozen times, so it is timed for
  a network with few samples.
- export: safetensors. It reads the weights and writes the file.

Larger networks: a training step with soft removal of half of all nodes beside one without, in turns, with a small
batch and a usual one; the ratio is the median over the rounds. ViT-H/14 is analysed once, chosen from and set to zero
in a new process, whose largest memory is compared with that of its weights.

One thread and processor time, so that other processes disturb little.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torchvision import models

import compress
from compress.graph.traced_once import TracedOnce
from compress.run.provenance import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "limits.json"
WIDTH = 4096
FOREVER = 1_000_000  # steps: no removal is over within the benchmark
LARGER: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {  # and the batch sizes
    "ResNet-50": (models.resnet50, (2, 16)),
    "ViT-B/16": (models.vit_b_16, (1, 16)),
}
HUGE = "ViT-H/14"


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each part, in turns.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One round; without the largest network.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
    task: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print a table, and write it as JSON."""
    if task:
        print(json.dumps(huge()))
        return
    torch.set_num_threads(1)
    rounds = 1 if quick else rounds
    document: dict[str, Any] = {
        "machine": {"cpu": cpu_name(), "threads": 1, "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)},
        "versions": {name: version(name) for name in ("softprune", "torch", "torchvision")},
        "rounds": rounds,
        "parts": parts(rounds),
        "steps": [
            {"network": name, **ratio(build, batch, rounds)}
            for name, (build, batches) in LARGER.items()
            for batch in batches
        ],
        "huge": None if quick else in_process(),
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


# --- bytes and bandwidth ---


def parts(rounds: int) -> dict[str, dict[str, float]]:
    """Of each part the bytes that it must move, the medians of its seconds and of the copy's bandwidth, and `times`."""
    with tempfile.TemporaryDirectory() as scratch:
        cases = {"step": step(), "selection": selection(), "slim": cut(), "export": export(Path(scratch))}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        for number in range(rounds + 1):
            print(f"parts, round {number} of {rounds}", file=sys.stderr)
            for name, (_, run) in cases.items():
                measured = bandwidth(), run()
                if number:  # the first touches all memory
                    found[name].append(measured)
    return {
        name: {
            "bytes": cases[name][0],
            "seconds": statistics.median(seconds for _, seconds in one),
            "bandwidth": statistics.median(speed for speed, _ in one),
            "times": statistics.median(seconds * speed / cases[name][0] for speed, seconds in one),
        }
        for name, one in found.items()
    }


def bandwidth(size: int = WIDTH * WIDTH) -> float:
    """Bytes a second that a copy of float32 numbers reads and writes together."""
    source, target = torch.ones(size), torch.zeros(size)
    best = min(seconds(lambda: target.copy_(source)) for _ in range(3))
    return 8 * size / best


def seconds(run: Callable[[], object]) -> float:
    """Of processor time."""
    gc.collect()
    begin = time.process_time()
    run()
    return time.process_time() - begin


def linears(width: int = WIDTH) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8)
    ).eval()


def size_of(model: nn.Module) -> int:
    """Bytes of the parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


Case = tuple[int, Callable[[], float]]
"""Bytes that must be moved, and a measurement in seconds."""


def step() -> Case:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False))
    pruner = compress.Pruner(model, "*", sparsity=0.9, removal=compress.Soft(steps=FOREVER))
    return 4 * size_of(model), lambda: seconds(pruner.step)


def selection() -> Case:
    layer = nn.Linear(WIDTH, WIDTH, bias=False)
    model = nn.Sequential(layer)

    def run() -> float:
        found: list[compress.Pruner] = []
        spent = seconds(lambda: found.append(compress.Pruner(model, "*", sparsity=0.9, removal=compress.Soft(steps=9))))
        found[0].finalize()
        layer.reset_parameters()
        return spent

    return 2 * size_of(model), run


def cut() -> Case:
    model, example = linears(), torch.randn(2, 64)
    compress.Pruner(
        model, compress.nodes("*"), sparsity=0.5, example=example, removal=compress.Hard(), criterion="norms"
    ).finalize()
    rest = size_of(compress.slim(model, example))
    return size_of(model) + rest, lambda: seconds(lambda: compress.slim(model, example))


def export(folder: Path) -> Case:
    model = linears()
    return 2 * size_of(model), lambda: seconds(lambda: compress.export.safetensors(model, folder / "model.safetensors"))


# --- larger networks ---


def ratio(build: Callable[[], nn.Module], batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a step without and with soft removal of nodes, and the median of the rounds' ratios."""
    pictures, labels = torch.randn(batch, 3, 224, 224), torch.arange(batch)
    plain, pruned = trained(build), trained(build)
    pruner = compress.Pruner(
        pruned[0],
        compress.nodes("*"),
        sparsity=0.5,
        example=pictures[:1],
        criterion="norms",
        removal=compress.Soft(steps=FOREVER),
    )

    def with_pruning() -> None:
        one_step(*pruned, pictures, labels)
        pruner.step()

    found = []
    for number in range(2 * rounds + 1):
        print(f"step {number} of {2 * rounds}", file=sys.stderr)
        first = seconds(lambda: one_step(*plain, pictures, labels))
        second = seconds(with_pruning)
        if number:
            found.append((first, second))
    return {
        "batch": batch,
        "without": statistics.median(first for first, _ in found),
        "with": statistics.median(second for _, second in found),
        "ratio": statistics.median(second / first for first, second in found),
    }


def trained(build: Callable[[], nn.Module]) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = build()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, pictures: Tensor, labels: Tensor) -> None:
    nn.functional.cross_entropy(model.train()(pictures), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()


def in_process() -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, "--task", "huge"], env=environment, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{HUGE}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def huge() -> dict[str, float]:
    """Seconds of analysis, choice and removal in ViT-H/14, and its largest memory, relative to the weights."""
    torch.set_num_threads(1)
    model, example = uninitialised(models.vit_h_14).eval(), torch.randn(1, 3, 224, 224)
    weights, start, traced = size_of(model), peak(), TracedOnce()
    spent = {"analysis": seconds(lambda: traced.couplings(model, example))}
    pruner: list[compress.Pruner] = []
    wanted = {"sparsity": 0.5, "example": example, "criterion": "norms", "removal": compress.Hard(), "traced": traced}
    spent["choice"] = seconds(lambda: pruner.append(compress.Pruner(model, compress.nodes("*"), **wanted)))  # type: ignore[arg-type]
    spent["removal"] = seconds(pruner[0].finalize)
    beside = (peak() - start) / weights
    return {"bytes": weights, **spent, "memory": 1 + beside}


def uninitialised(build: Callable[[], nn.Module]) -> nn.Module:
    """With drawn weights in the scale of a trained network, and not with the slow initialisation."""
    with torch.device("meta"):
        model = build()
    model = model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
        for buffer in model.buffers():
            buffer.zero_()
    return model


def peak() -> int:
    """The largest memory of this process so far, in bytes. That of `getrusage` would begin with its parent's."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))


if __name__ == "__main__":
    typer.run(main)
