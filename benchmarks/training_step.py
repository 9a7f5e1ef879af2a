"""Times a training step with pruning, beside one without, and one with torch's own prune hooks.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --only "classifier, batch 64"

A step is forward, backward and a fused optimizer. Every way has its own copy of the network; they take turns, a few
steps each, and a ratio is the median over the rounds of the round's own ratio: to the step without pruning, and to the
one with torch's hooks, which no way should exceed. Seconds are of processor time, in one thread, so that other
processes disturb them less; ratios still depend on the machine, on its caches most of all. It prunes what the recipes
prune: all weights of the classifier (97 %), the decoder of the autoencoder (90 %); of torchvision's
ResNet-18, on pictures of 224 x 224, all weights (90 %). The growth is that of `Pruner.step` on one square Linear, from
65,536 to 16,777,216 weights.
"""

import copy
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim import Optimizer
from torchvision.models import resnet18

from compress import models
from compress.remove.pruner import Pruner
from compress.remove.removals import GradualSoft, Hard, Removal, Soft
from compress.report import plots
from compress.run.provenance import cpu_name
from compress.select.choose import LayerCollapseWarning
from compress.select.targets import resolve, weights

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "training_step.json"
FOREVER = 1_000_000  # steps: no removal is over within the benchmark


@dataclass(frozen=True)
class Case:
    """A network, what it learns and how, and what is pruned of it."""

    network: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    targets: str
    sparsity: float
    optimizer: str
    steps: int  # in a turn
    rounds: int


OPTIMIZERS: Mapping[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "AdamW": partial(torch.optim.AdamW, lr=1e-5, fused=True),
    "SGD": partial(torch.optim.SGD, lr=1e-5, momentum=0.9, fused=True),
}
CASES = {
    **{
        f"{name}, batch {batch}, {optimizer}": Case(
            network, (batch, 1, 28, 28), targets, sparsity, optimizer, steps, rounds
        )
        for network, name, targets, sparsity, batch, steps, rounds in (
            (models.classifier, "classifier", "dense.*", 0.97, 64, 20, 40),
            (models.classifier, "classifier", "dense.*", 0.97, 256, 8, 30),
            (models.autoencoder, "autoencoder", "decoder.*", 0.90, 128, 6, 30),
        )
        for optimizer in OPTIMIZERS
    },
    "ResNet-18, batch 32, AdamW": Case(resnet18, (32, 3, 224, 224), "*", 0.90, "AdamW", 1, 3),
}
# name -> the removal, and whether gradients are masked: a Pruner does so by default; recipes do so
# where entries may leave the set, and under Muon
WAYS: Mapping[str, tuple[Callable[[], Removal], bool]] = {
    "soft": (lambda: Soft(steps=FOREVER), True),
    "soft, gradients unmasked": (lambda: Soft(steps=FOREVER), False),
    "hard": (Hard, True),
    "hard, gradients unmasked": (Hard, False),
    "gradual soft": (lambda: GradualSoft(steps=FOREVER, every=20, cohort=100), True),
}
PLAIN, HOOKS = "no pruning", "torch.nn.utils.prune"


def main(
    only: Annotated[str, typer.Option(help="Only the cases whose names begin so.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the rounds, to see that it runs.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures; plots go beside it.")] = REPORT,
) -> None:
    """Print milliseconds and ratios of every way on every network, and write them as JSON with a plot of the growth."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", LayerCollapseWarning)
    found = {}
    for name, case in CASES.items():
        if name.startswith(only):
            found[name] = measure(case, max(2, case.rounds // 5) if quick else case.rounds)
            print(name)
            for way, values in found[name].items():
                print(f"  {way:<26}" + "".join(f"{key} {value:8.3f}  " for key, value in values.items()), flush=True)
    sizes, seconds = growth(20 if quick else 100)
    exponent = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    print(f"Pruner.step over weights: exponent {exponent:.2f}")
    document = {
        "machine": {"cpu": cpu_name(), "threads": 1, "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)},
        "versions": {name: version(name) for name in ("softprune", "torch")},
        "steps": found,
        "growth": {"weights": sizes, "seconds": seconds, "exponent": exponent},
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw(sizes, seconds, exponent, report)


def measure(case: Case, rounds: int) -> dict[str, dict[str, float]]:
    """The milliseconds of a step, and its ratios to no pruning and to torch's hooks, by way."""
    torch.manual_seed(0)
    network, inputs = case.network(), torch.rand(case.inputs)
    steps = {way: training_step(copy.deepcopy(network), inputs, case, way) for way in (PLAIN, HOOKS, *WAYS)}
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    for step in steps.values():
        step()  # the optimizers create their state
    for _ in range(rounds):
        for way, step in steps.items():
            started = time.process_time()
            for _ in range(case.steps):
                step()
            seconds[way].append((time.process_time() - started) / case.steps)

    def ratio(way: str, other: str) -> float:
        return median(mine / theirs for mine, theirs in zip(seconds[way], seconds[other], strict=True))

    return {
        way: {"milliseconds": 1000 * median(found), "ratio": ratio(way, PLAIN), "to_hooks": ratio(way, HOOKS)}
        for way, found in seconds.items()
    }


def training_step(network: nn.Module, inputs: Tensor, case: Case, way: str) -> Callable[[], None]:
    """One step of training `network` while it is pruned."""
    optimizer = OPTIMIZERS[case.optimizer](network.parameters())
    pruner = None
    if way == HOOKS:
        places = [(target.module, target.name) for target in resolve(network, weights(case.targets))]
        prune.global_unstructured(places, prune.L1Unstructured, amount=case.sparsity)
    elif way != PLAIN:
        removal, masks = WAYS[way]
        how = removal()
        pruner = Pruner(network, case.targets, sparsity=case.sparsity, removal=how, mask_gradients=masks)

    def step() -> None:
        network(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if pruner is not None:
            pruner.step()

    return step


def growth(repeats: int) -> tuple[list[int], list[float]]:
    """(weights, median seconds of `Pruner.step`) of square layers."""
    sizes, found = [], []
    for width in (256, 512, 1024, 2048, 4096):
        pruner = Pruner(nn.Linear(width, width), sparsity=0.9, removal=Soft(steps=FOREVER))
        seconds = []
        for _ in range(repeats):
            started = time.process_time()
            pruner.step()
            seconds.append(time.process_time() - started)
        sizes.append(width * width)
        found.append(median(seconds))
    return sizes, found


def draw(sizes: Sequence[int], seconds: Sequence[float], exponent: float, report: Path) -> None:
    figure, axes = plots.canvas(1)
    axes.loglog(sizes, [1e6 * value for value in seconds], marker="o", label=f"exponent {exponent:.2f}")
    axes.set(xlabel="weights", ylabel="microseconds of a Pruner.step")
    axes.legend()
    for kind in ("svg", "png"):
        plots.save(figure, "growth", report.with_name(f"training_step.{kind}"))


if __name__ == "__main__":
    typer.run(main)
