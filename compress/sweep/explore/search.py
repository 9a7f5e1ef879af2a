"""Find the smallest network within bounds of quality, the best one within bounds of size, or the one at the knee.

Every trial trains like `compress apply`, on the training samples without the held-out ones, which decide all choices.
The winner is then trained on all training samples and measured on the test samples, once.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from compress.errors import InputError
from compress.recipe import schema
from compress.sweep.cell_store import Cells
from compress.sweep.cells import Bar, Basis, described, silent, written
from compress.sweep.engines import ONE, Workers
from compress.sweep.explore import levels
from compress.sweep.explore.bisection import first_true
from compress.sweep.explore.bounds import quality, shown
from compress.sweep.explore.front import knee
from compress.sweep.explore.trials import Left, Trials, Wanted
from compress.sweep.trained import Trained
from compress.sweep_results import Search, SearchTrial, TrialNumber, TriedFailure, TriedNetwork, Winner

TRIALS = 30
"""The default number of Optuna's trials."""


def search(
    recipe: schema.Recipe,
    model: Path,
    wanted: Wanted,
    data_root: Path,
    cache: Path,
    *,
    workers: Workers = ONE,
    device: str = "cpu",
    bar: Bar = silent,
) -> Search:
    """Run the trials that are not in the folder `cache` yet, and return the content of results.json.

    Raises:
        InputError: data, model or stages do not fit, bounds decide nothing, or Optuna is missing.
        SweepError: trials failed. Finished trials are kept.
    """
    basis, trained = Basis(recipe, data_root, device), Trained.of(model)
    widths = levels.check(recipe, trained, basis)
    if wanted.goal == "knee" and (len(widths) > 1 or widths[0] is None):
        raise InputError("--knee is the bend of the loss over the nodes of one layer: target one layer of nodes")
    if wanted.levels and (len(widths) > 1 or wanted.trials is not None):
        raise InputError("--levels is for bisecting one stage: leave it out with several stages or with --trials")
    with Cells(cache) as cells:
        with bar("search") as on_progress:
            trials = Trials(trained, basis, wanted, cells, workers, on_progress)
            if wanted.goal == "knee":
                _run_curve(trials, _grid(recipe.stages[0], wanted.levels) or levels.halvings(widths[0] or 1))
            elif len(widths) == 1 and wanted.trials is None:
                _bisect(trials, _grid(recipe.stages[0], wanted.levels) or levels.grid(widths[0]))
            else:
                from compress.sweep.explore import sampling

                sampling.sample(trials, wanted.trials or TRIALS, cache)
        return _results(trials, basis, of_one_layer=len(widths) == 1 and widths[0] is not None)


def _grid(stage: schema.Stage, wanted: Sequence[float]) -> list[float]:
    for level in wanted:
        if not 0 < level < 1:
            raise InputError(f"--levels {level:g}: levels are between 0 and 1")
    shares = [1 - level if stage.level[0] == "sparsity" else level for level in wanted]
    return sorted(set(shares), reverse=True)


def _run_curve(trials: Trials, grid: Sequence[float]) -> None:
    trials.run([(left,) for left in grid], len(grid))


def _bisect(trials: Trials, grid: Sequence[float]) -> None:
    """Find where the bounds begin, or cease, to hold along the falling grid, assuming that this is a single place."""
    smallest = trials.wanted.goal == "smallest"
    total = math.ceil(math.log(len(grid) + 1, trials.at_once + 1)) * trials.at_once

    def beyond(indices: Sequence[int]) -> list[bool]:
        """Whether too much is pruned, or enough; a failed trial counts as too small."""
        found = trials.run([(grid[index],) for index in indices], total)
        return ["failed" in result or trials.holds(result) != smallest for result in found]

    first_true(beyond, len(grid), trials.at_once)


# --- results.json ---


def _results(trials: Trials, basis: Basis, *, of_one_layer: bool) -> Search:
    wanted, front, kind = trials.wanted, trials.front(), trials.kind
    numbers = {left: number for number, left in enumerate(trials.found)}
    curve = trials.curve() if of_one_layer else []
    # Only for sizes spread over the whole curve, unlike those of a bisection.
    bend = _knee(trials, curve) if wanted.goal == "knee" else None
    at_the_knee = [] if bend is None else [bend[1]]
    candidates = at_the_knee if wanted.goal == "knee" else trials.ranked()
    return {
        **described(basis),
        "metric": written(quality(kind, trials.judged)),
        "seed": trials.recipe.seed,
        "goal": wanted.goal,
        "bounds": [{"kind": bound.kind, "text": bound.text, "limit": trials.limit(bound)} for bound in wanted.bounds],
        "size": trials.measure,
        "quality": kind,
        "dense": {**trials.dense, "value": shown(kind, trials.dense["metric"], trials.judged)},
        "trials": [_trial(trials, left, number, front=left in front) for left, number in numbers.items()],
        "front": [numbers[left] for left in front],
        "curve": [
            {"left": count, "trial": numbers[left], "loss": trials.complete[left]["metric"]["loss"]}
            for count, left in curve
        ],
        "knee": None if bend is None else {"left": bend[0], "trial": numbers[bend[1]]},
        "winner": _winner(trials, candidates, numbers),
    }


def _trial(trials: Trials, left: Left, number: int, *, front: bool) -> SearchTrial:
    result = trials.found[left]
    about: TrialNumber = {
        "number": number,
        "levels": [stage.level[1] for stage in trials.stages(left)],
        "title": trials.title(left),
        "holds": trials.holds(result),
        "front": front,
    }
    if "failed" in result:
        failure: TriedFailure = {**about, **result}
        return failure
    network: TriedNetwork = {**about, "value": shown(trials.kind, result["metric"], trials.judged), **result}
    return network


def _knee(trials: Trials, curve: Sequence[tuple[int, Left]]) -> tuple[int, Left] | None:
    index = knee([count for count, _ in curve], [trials.complete[left]["metric"]["loss"] for _, left in curve])
    return None if index is None else curve[index]


def _winner(trials: Trials, candidates: Sequence[Left], numbers: Mapping[Left, int]) -> Winner | None:
    """The first within the bounds of size after training on all samples, which may prune other nodes."""
    for left in candidates:
        dense, found = trials.final(left)
        sizes = [bound for bound in trials.wanted.bounds if bound.kind in ("params", "macs")]
        if "failed" not in found and all(trials.keeps(bound, found) for bound in sizes):
            winner: Winner = {
                "trial": numbers[left],
                "levels": [stage.level[1] for stage in trials.stages(left)],
                "dense_test": dense["metric"],
                "test": found["metric"],
                "params": found["params"],
                "nonzero": found["nonzero"],
                "macs": found["macs"],
                "key": found["key"],
            }
            if "latency" in found:
                winner["latency"] = found["latency"]
            return winner
    return None


def recipe_with(recipe: schema.Recipe, results: Search) -> schema.Recipe | None:
    """The recipe with the winner's levels; None without a winner."""
    if (winner := results["winner"]) is None:
        return None
    stages = tuple(
        stage.model_copy(update={stage.level[0]: level})
        for stage, level in zip(recipe.stages, winner["levels"], strict=True)
    )
    return recipe.model_copy(update={"stages": stages})
