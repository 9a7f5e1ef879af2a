"""Compares a decaying N:M mask with cutting at once, on two networks: test accuracy after exact removal.

    python benchmarks/patterns.py --data-root DIR

The MNIST classifier, and the paper's convolutional classifier of CIFAR-10, each trained for a few epochs on 15,000
images. Of all weights, those of convolutions included, n of every m along the inputs are kept. Every way gets the same
epoch of retraining with the same images in the same order: hard cuts before it, soft lets the pruned weights decay
during half of it, and gradual_soft lets a growing set decay. "soft, any weights" prunes as many without a pattern.
Finished cells are in docs/benchmarks/patterns.json, and are not run again.
"""

import copy
import json
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from sparse import trained

import compress
from compress.recipe import schema
from compress.run.provenance import cpu_name
from compress.run.setting import optimization

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "patterns.json"
NETWORKS = {"mnist_classifier": 4, "cifar10_classifier": 4}
"""Epochs of the dense training, by recipe."""

PATTERNS = ((2, 4), (1, 4), (1, 8))
RATE = 1e-3


def main(
    data_root: Annotated[Path, typer.Option(envvar="COMPRESS_DATA", help="Where the data lie.")] = Path("data"),
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Run what the file does not have yet; print the figures."""
    torch.set_num_threads(1)
    document = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {"cells": {}}
    document |= {
        "machine": {"cpu": cpu_name(), "threads": 1},
        "versions": {name: version(name) for name in ("softprune", "torch")},
        "epochs": {"dense": NETWORKS, "retraining": 1},
    }
    for recipe in NETWORKS:
        for seed in range(seeds):
            key = f"{recipe}, seed {seed}"
            if key not in document["cells"]:
                document["cells"][key] = dict(cell(recipe, seed, data_root))
                report.parent.mkdir(parents=True, exist_ok=True)
                report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            print(key, document["cells"][key], flush=True)


def cell(recipe: str, seed: int, data_root: Path) -> Iterator[tuple[str, Any]]:
    """("dense", accuracy), and for each pattern the accuracy by removal."""
    dense, setting = trained(recipe, data_root, seed, NETWORKS[recipe])
    yield "dense", setting.evaluate(dense)["accuracy"]
    steps = setting.steps_per_epoch
    settings = optimization(schema.Retraining(epochs=1, optimizer="adam", lr=RATE, lr_schedule="cosine"))
    for n, m in PATTERNS:
        found = {}
        for way, (scope, removal) in ways({"n": n, "m": m}, steps).items():
            model = copy.deepcopy(dense)
            pruner = compress.Pruner(model, "*", sparsity=1 - n / m, scope=scope, removal=removal)
            setting.train(model, steps, settings, after_step=partial(step_of, pruner), pruner=pruner)
            pruner.finalize()
            found[way] = setting.evaluate(model)["accuracy"]
        yield f"{n}:{m}", found


def step_of(pruner: compress.Pruner, step: int) -> None:
    pruner.step()


def ways(pattern: dict[str, int], steps: int) -> dict[str, tuple[Any, compress.Removal]]:
    """(scope, removal) of each."""
    soft = compress.Soft(steps=steps // 2)
    return {
        "hard": (pattern, compress.Hard()),
        "soft": (pattern, soft),
        "gradual_soft": (pattern, compress.GradualSoft(steps=steps // 2)),
        "soft, any weights": ("global", soft),
    }


if __name__ == "__main__":
    typer.run(main)
