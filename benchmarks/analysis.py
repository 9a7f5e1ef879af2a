"""Compares the time of the analysis, and of a whole `slim`, with that of another checkout of this project.

    git worktree add /some/folder COMMIT
    python benchmarks/analysis.py --against /some/folder

ResNet-50 and ViT-B/16 of torchvision, built as by zoo.py, with half of every width zeroed that both checkouts cut,
norms that have measured their statistics, and a head that is not zero. The analysis is `couplings`; `slim` is
analysis, cut and proof. Both include every pass that they make through the network. The outputs of random networks
vary little over the inputs, so that the proof decides in float64; with a tolerance of 1e-2 float32 decides, as in
trained networks.

A measurement is a new process with one thread, after a first analysis of a tiny network. The checkouts take turns.
Seconds are of processor time; figures are medians over the rounds.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import nn
from zoo import build, picture, timed

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "analysis.json"
NETWORKS = {"ResNet-50": "resnet50", "ViT-B/16": "vit_b_16"}
TOLERANCES = {"slim": 1e-2, "slim, float64 decides": 1e-5}
PARTS = ("couplings", *TOLERANCES)


def main(
    against: Annotated[Path | None, typer.Option(help="The other checkout.")] = None,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind, in each checkout.")] = 7,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
    task: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure both checkouts in turns; print a table and write it as JSON."""
    if task:
        print(json.dumps(TASKS[task](**json.loads(sys.stdin.read()))))
        return
    if against is None:
        raise typer.BadParameter("give the folder of another checkout", param_hint="--against")
    from compress.run.provenance import cpu_name

    checkouts = {"before": against, "now": ROOT}
    cases = {}
    for title, name in NETWORKS.items():
        widths = [in_process(checkout, "widths", name=name) for checkout in checkouts.values()]
        common = sorted(set(widths[0]) & set(widths[1]))
        cases[title] = measured(checkouts, name, common, rounds)
        print(title, json.dumps(cases[title]), flush=True)
    machine = {"cpu": cpu_name(), "threads": 1, "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)}
    commits = {which: commit(checkout) for which, checkout in checkouts.items()}
    versions = {"torch": torch.__version__}
    document = {"machine": machine, "versions": versions, "commits": commits, "rounds": rounds, "cases": cases}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def measured(checkouts: Mapping[str, Path], name: str, common: list[str], rounds: int) -> dict[str, Any]:
    """Median seconds of each part in each checkout, and the median of the ratios of the rounds."""
    with tempfile.TemporaryDirectory() as scratch:
        file = str(Path(scratch) / "masked.pt")
        widths = in_process(ROOT, "mask", name=name, common=common, file=file)
        found = [
            {which: in_process(checkout, "time", name=name, file=file) for which, checkout in checkouts.items()}
            for _ in range(rounds)
        ]
    return {
        "widths": widths,
        "gone": found[0]["now"]["gone"],
        "seconds": {part: {which: median(one[which][part] for one in found) for which in checkouts} for part in PARTS},
        "ratio": {part: median(one["now"][part] / one["before"][part] for one in found) for part in PARTS},
    }


def in_process(checkout: Path, task: str, **given: Any) -> Any:
    """What a task returns in a new process that imports the package of `checkout`."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--task", task]
    ran = subprocess.run(command, input=json.dumps(given), env=environment, text=True, stdout=subprocess.PIPE)
    if ran.returncode:
        raise SystemExit(f"{task} failed in {checkout}")
    return json.loads(ran.stdout)


# Each in its own process


def widths(name: str) -> list[str]:
    """Every width that can be cut, by the layer that computes it and its number of nodes."""
    from compress.graph.coupling import couplings

    return [f"{one.name}, {one.size}" for one in couplings(build(name), picture(name)).found]


def mask(name: str, common: list[str], file: str) -> int:
    """Write the tensors of the masked network; returns how many widths are halved."""
    from compress.graph.coupling import couplings

    model, example = build(name), picture(name)
    found = [one for one in couplings(model, example).found if f"{one.name}, {one.size}" in common]
    calibrate(model)
    with torch.no_grad():
        for coupling in found:
            for parameter, kept in coupling.masks(model, torch.arange(coupling.size) % 2 == 0).items():
                model.get_parameter(parameter).mul_(kept)
    calibrate(model)
    torch.save(model.state_dict(), file)
    return len(found)


@torch.no_grad()
def calibrate(model: nn.Module) -> None:
    """Let norms measure their statistics; a last layer of zeros gets numbers."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
        if isinstance(module, nn.Linear) and not bool(module.weight.any()):
            module.weight.normal_(0, 0.02)
    model.train()(torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(1)))
    model.eval()


def time(name: str, file: str) -> dict[str, float]:
    """Seconds of each part, and the share of the parameters that is gone."""
    from compress.graph.coupling import couplings
    from compress.slimming.shrink import slim

    model, example = build(name), picture(name)
    model.load_state_dict(torch.load(file))
    warnings.simplefilter("ignore")
    _, analysis = timed(couplings, model, example)
    seconds = {"couplings": analysis}
    for part, tolerance in TOLERANCES.items():
        small, seconds[part] = timed(partial(slim, tolerance=tolerance), model, example)
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in (small, model)]
    return seconds | {"gone": 1 - sizes[0] / sizes[1]}


TASKS: Mapping[str, Any] = {"widths": widths, "mask": mask, "time": time}


if __name__ == "__main__":
    typer.run(main)
