"""Measures the cells of a sweep per minute, with one worker and with two, and what a cell costs beside its work.

    python benchmarks/sweeps.py
    python benchmarks/sweeps.py --quick

A sweep compares hard and soft removal in the MNIST classifier on mnist_sample, as `compress compare` does. A cell's
work is training and evaluating; the rest of the time since its worker's cell before is overhead. For the first cell of
a worker that is the start: importing torch and reading the data.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import typer

from compress.files.checkpoint import write_weights
from compress.recipe.loading import load_recipe
from compress.run.building import build_model
from compress.run.clock import Clock
from compress.run.provenance import cpu_name
from compress.sweep import cells, jobs
from compress.sweep.cell_store import Cells
from compress.sweep.cells import Basis
from compress.sweep.compare.cells import StageCell
from compress.sweep.compare.grid import Grid, plan
from compress.sweep.engines import Workers

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "sweeps.json"
RECIPE = "mnist_classifier"
WORKERS = (1, 2)
SPARSITY = 0.5
Result = dict[str, Any]


def main(
    count: Annotated[int, typer.Option("--cells", min=6, help="Of one sweep; an even number.")] = 16,
    epochs: Annotated[int, typer.Option(min=1, help="Of retraining in each cell.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="How often, with one worker and with two in turns.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One round.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Run the sweep with one worker and with two in turns; print a table and write it as JSON."""
    found: dict[int, list[dict[str, float]]] = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory() as scratch:
        grid = planned(Path(scratch) / "model.safetensors", count // 2, epochs)
        for number in range(1 if quick else rounds):
            for workers in WORKERS:
                print(f"round {number + 1}: {workers} worker(s)", file=sys.stderr)
                found[workers].append(measured(grid, Path(scratch) / f"{number}_{workers}", workers))
    figures = {
        str(workers): {name: statistics.median(one[name] for one in runs) for name in runs[0]}
        for workers, runs in found.items()
    }
    ratio = statistics.median(
        two["cells_per_minute"] / one["cells_per_minute"] for one, two in zip(*found.values(), strict=True)
    )
    machine = {"cpu": cpu_name(), "threads": 1, "cores": os.cpu_count()}
    versions = {name: version(name) for name in ("softprune", "torch")}
    asked = {"recipe": RECIPE, "data": "mnist_sample", "cells": count, "epochs": epochs, "rounds": len(found[1])}
    document = {**asked, "machine": machine, "versions": versions, "workers": figures, "two_to_one": ratio}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print("one thread a worker; seconds are medians over the cells, and over the rounds")
    print(f"{'workers':>8}" + "".join(f"{name.replace('_', ' '):>18}" for name in figures["1"]))
    for name, one in figures.items():
        print(f"{name:>8}" + "".join(f"{value:18.2f}" for value in one.values()))
    print(f"two workers do {ratio:.2f} times as many cells a minute as one")


def planned(model: Path, seeds: int, epochs: int) -> Grid:
    """Hard and soft removal from a network with random weights, for `seeds` seeds."""
    recipe = load_recipe(RECIPE)
    write_weights(build_model(recipe.model, 0).state_dict(), model)
    changes = ("data.name=mnist_sample", "data.train=4000", "data.test=1000", f"stages.0.retrain.epochs={epochs}")
    return plan(
        RECIPE,
        [model],
        removals=("hard", "soft"),
        sparsities=(str(SPARSITY),),
        rates=("1e-3",),
        seeds=seeds,
        changes=changes,
    )


def measured(grid: Grid, cache: Path, workers: int) -> dict[str, float]:
    """Cells a minute once the workers have started, and medians over the cells, in seconds."""
    basis = Basis(grid.recipe, Path("data"), "cpu")
    todo = [
        StageCell(grid.model(seed), rival.stage(SPARSITY, 1e-3), seed, number=grid.number)
        for seed in grid.seeds
        for rival in grid.rivals
    ]
    queue = [jobs.Job(cell.key(basis), str(cell.seed), partial(run, cell, basis)) for cell in todo]
    began = time.time()
    done = sorted(
        jobs.run(queue, Cells(cache), Workers(workers)).values(),
        key=lambda result: (result["process"], result["ended"]),
    )
    whole = time.time() - began
    by_worker = [list(mine) for _, mine in groupby(done, key=lambda result: result["process"])]
    later = [(cell["ended"] - before["ended"], cell["work"]) for mine in by_worker for before, cell in pairwise(mine)]
    return {
        "cells_per_minute": sum(60 * (len(mine) - 1) / (mine[-1]["ended"] - mine[0]["ended"]) for mine in by_worker),
        "work": statistics.median(work for _, work in later),
        "overhead": statistics.median(wall - work for wall, work in later),
        "most_overhead": max(wall - work for wall, work in later),
        "start": statistics.median(mine[0]["ended"] - mine[0]["work"] - began for mine in by_worker),
        "whole_sweep": whole,
    }


def run(cell: StageCell, basis: Basis) -> Result:
    """The cell, with the process, the time at its end, and the seconds that were training or evaluation."""
    clock = Clock()
    with patch.object(cells, "Clock", lambda: clock):
        result = cell.run(basis)
    work = clock.spent("training") + clock.spent("evaluation")
    return {**result, "process": os.getpid(), "ended": time.time(), "work": work}


if __name__ == "__main__":
    typer.run(main)
