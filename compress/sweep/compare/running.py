"""Run a grid, fairly: choose every rival's learning rate on held-out samples, then measure on the test samples.

Fair means that all rivals get the same steps, the same order of the same samples for a seed, and the same candidate
learning rates; and that the test samples do not influence any choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from compress.errors import InputError, SweepError
from compress.graph.twin import copied
from compress.ranking import MetricKind, present
from compress.recipe import schema
from compress.remove.removals import Hard
from compress.remove.remover import Remover
from compress.run.building import build_task
from compress.run.entries import kind_of
from compress.run.pruning import stage_selection
from compress.run.setting import Setting
from compress.run.stage import check_stage
from compress.select.pruned import Pruned
from compress.sweep.cell_store import Cells
from compress.sweep.cells import (
    HELD_OUT,
    Bar,
    Basis,
    compute,
    described,
    prepare,
    require_expected,
    require_network,
    silent,
    tunes_on_validation,
)
from compress.sweep.compare import summary
from compress.sweep.compare.cells import ScratchCell, StageCell, require_cut
from compress.sweep.compare.grid import Grid, Rival
from compress.sweep.engines import ONE, Workers
from compress.sweep_results import (
    ComparedCell,
    ComparedDense,
    ComparedGrid,
    ComparedRun,
    ComparedRuns,
    Comparison,
    RivalNames,
)
from compress.tasks import ranking
from compress.train.metrics import headline


@dataclass(frozen=True)
class _Run:
    """A cell, and its place in the grid."""

    rival: Rival
    sparsity: float
    rate: float | None
    seed: int
    cell: StageCell | ScratchCell

    @property
    def title(self) -> str:
        rate = "" if self.rate is None else f", lr {self.rate:g}"
        return f"{self.rival.name}, {self.sparsity:.1%}{rate}, seed {self.seed}"


def compare(
    grid: Grid, data_root: Path, cache: Path, *, workers: Workers = ONE, device: str = "cpu", bar: Bar = silent
) -> Comparison:
    """Compute the cells that are not in the folder `cache` yet, and return the content of results.json.

    Args:
        data_root: the folder of data sets, and for downloads.
        workers: the workers that compute the cells.
        device: auto, cpu or cuda.
        bar: shows the progress of each of the two parts.

    Raises:
        InputError: data, models or stages do not fit; nothing has been run.
        SweepError: cells failed, or a rival diverged at every learning rate. Finished cells are kept.
    """
    basis = Basis(grid.recipe, data_root, device)
    check(grid, basis)
    tries = [
        _run(grid, rival, sparsity, rate, grid.seeds[0], tuning=True)
        for rival in grid.rivals
        for sparsity in grid.sparsities
        for rate in (grid.rates if rival.trains and grid.tuned_like(rival) is rival and len(grid.rates) > 1 else ())
    ]
    with Cells(cache) as cells:
        return _compared(grid, basis, tries, cells, workers, bar)


def _compared(grid: Grid, basis: Basis, tries: Sequence[_Run], cells: Cells, workers: Workers, bar: Bar) -> Comparison:
    with bar("tuning") as on_progress:
        tried = compute([(run.title, run.cell) for run in tries], basis, cells, workers, on_progress)
    finals = [
        _run(grid, rival, sparsity, _chosen(grid, rival, sparsity, tries, tried), seed)
        for rival in grid.rivals
        for sparsity in grid.sparsities
        for seed in grid.seeds
    ]
    dense = [StageCell(model, None, grid.seeds[0]) for model in grid.models]
    jobs: list[tuple[str, StageCell | ScratchCell]] = [(run.title, run.cell) for run in finals]
    jobs = [*((f"dense, {found.trained.path.name}", found) for found in dense), *jobs]
    with bar("comparing") as on_progress:
        done = compute(jobs, basis, cells, workers, on_progress)
    ranked = ranking(build_task(grid.recipe.task))
    results: ComparedRuns = {
        **described(basis),
        **_described(grid),
        "dense": [_dense_entry(found, result, ranked) for found, result in zip(dense, done, strict=False)],
        "tuning": [_entry(run, result, ranked) for run, result in zip(tries, tried, strict=True)],
        "cells": [_entry(run, result, ranked) for run, result in zip(finals, done[len(dense) :], strict=True)],
    }
    return {**results, "levels": summary.levels(results)}


def check(grid: Grid, basis: Basis) -> None:
    """Check before any time is spent that the whole grid can be run; this also downloads the data, once.

    Raises:
        InputError: data, models or stages do not fit.
    """
    for model in grid.models:
        network = require_network(model, basis, grid.seeds[0])
        require_expected(model, basis, grid.seeds[0])
    for rival in grid.rivals:
        for tuning in (True, False):
            setting = prepare(basis, grid.seeds[0], tuning=tuning)
            try:
                check_stage(network, rival.template, grid.number, setting)
            except InputError as error:
                share = 1 if tunes_on_validation(basis) else 1 - HELD_OUT
                where = f" on {share:.0%} of the training samples, to choose learning rates" if tuning else ""
                raise type(error)(f"{rival.name}{where}: {error}") from error
    if any(rival.scratch for rival in grid.rivals):
        for sparsity in grid.sparsities:
            _require_cut(copied(network), grid.rivals[0].stage(sparsity, None), grid.number, setting)


def _require_cut(network: nn.Module, stage: schema.Stage, number: int, setting: Setting) -> None:
    """Check with what the stage would prune at once, as a rehearsal does."""
    chosen = stage_selection(network, stage, number, Pruned(), setting)
    Remover(network, chosen.paths, chosen, chosen.target_share, Hard()).finalize()
    require_cut(network.eval(), setting)


def _run(grid: Grid, rival: Rival, sparsity: float, rate: float | None, seed: int, *, tuning: bool = False) -> _Run:
    cell = StageCell(grid.model(seed), rival.stage(sparsity, rate), seed, tuning, grid.number)
    return _Run(rival, sparsity, rate, seed, ScratchCell(cell, rival.scratch) if rival.scratch else cell)


def _chosen(
    grid: Grid, rival: Rival, sparsity: float, tries: Sequence[_Run], tried: Sequence[ComparedCell]
) -> float | None:
    """The best learning rate on the held-out samples; divergence is the worst result."""
    ranked = ranking(build_task(grid.recipe.task))
    here = [
        (_badness(result, ranked), run.rate)
        for run, result in zip(tries, tried, strict=True)
        if (run.rival, run.sparsity) == (grid.tuned_like(rival), sparsity)
    ]
    if not here:
        return grid.rates[0] if rival.trains else None
    badness, rate = min(here, key=lambda found: found[0])
    if math.isinf(badness[0]):
        raise SweepError(f"{rival.name}, {sparsity:.1%}: every learning rate diverged; name smaller ones with --lr")
    return rate


def _badness(result: ComparedCell, ranked: MetricKind) -> tuple[float, float]:
    """The compared figure, smaller = better; the loss breaks ties between equal figures."""
    if "diverged" in result:
        return math.inf, math.inf
    metric = result["after_removal"]
    kind = present(ranked, metric)
    return (-metric[kind.name] if kind.larger else metric[kind.name]), metric["loss"]


# --- results.json ---


def _described(grid: Grid) -> ComparedGrid:
    return {
        "stage": grid.number,
        "pruned": kind_of(grid.rivals[0].template.target),
        "seeds": list(grid.seeds),
        "measure": grid.rivals[0].template.level[0],
        "sparsities": sorted(grid.sparsities),
        "rates": list(grid.rates),
        "rivals": [_names(rival) for rival in grid.rivals],
    }


def _names(rival: Rival) -> RivalNames:
    removal, criterion, scope = rival.parts
    found: RivalNames = {"name": rival.name, "removal": removal, "criterion": criterion, "scope": scope}
    return {**found, "scratch": rival.scratch} if rival.scratch else found


def _dense_entry(cell: StageCell, result: ComparedCell, ranked: MetricKind) -> ComparedDense:
    value = headline(result["dense"], ranked)
    return {"model": str(cell.trained.path), "sha256": cell.trained.sha256, "value": value, **result}


def _entry(run: _Run, result: ComparedCell, ranked: MetricKind) -> ComparedRun:
    return {
        "rival": run.rival.name,
        "sparsity": run.sparsity,
        "lr": run.rate,
        "seed": run.seed,
        "value": headline(result["after_removal"], ranked) if "after_removal" in result else None,
        **result,
        "stage": run.rival.stage(run.sparsity, run.rate).model_dump(mode="json"),
    }
