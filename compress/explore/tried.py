"""The trials of a search so far: how large and how good each is, what keeps to the bounds, and what no other beats."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import sweep
from compress.explore import bounds, levels
from compress.explore.bounds import Bound, Goal
from compress.explore.front import pareto
from compress.explore.trial import Trial
from compress.recipe import schema
from compress.trials.cells import Place, compute
from compress.trials.trained import Trained

Results = dict[str, Any]
Left = tuple[float, ...]  # of each stage, the share that is left


@dataclass(frozen=True)
class Wanted:
    """What is searched for.

    task: of the recipe. trials: how many Optuna is to make; None: bisection where there is one stage, else TRIALS.
    levels: sparsities, or shares left where the stage has a budget, to bisect over; a grid if there are none.
    """

    bounds: tuple[Bound, ...]
    goal: Goal
    trials: int | None = None
    levels: tuple[float, ...] = ()


class Trials:
    """The trials of a search, run as they are asked for and kept in a folder."""

    def __init__(self, recipe: schema.Recipe, trained: Trained, place: Place, wanted: Wanted) -> None:
        self.recipe, self.wanted = recipe, wanted
        self._trained, self._place = trained, place
        self._timed = any(bound.kind == "latency" for bound in wanted.bounds)
        self.dense: Results = {}
        self.found: dict[Left, Results] = {}

    def stages(self, left: Left) -> tuple[schema.Stage, ...]:
        return tuple(levels.at(stage, share) for stage, share in zip(self.recipe.stages, left, strict=True))

    def title(self, left: Left) -> str:
        return "; ".join(map(levels.describe, self.stages(left)))

    def start(self, cache: Path, workers: int, on_progress: Callable[[sweep.Progress], None]) -> None:
        """Measure the dense network.

        Raises:
            InputError: bounds that decide nothing.
        """
        # A process that trains on the other core would be timed as well.
        self._cache, self._workers = cache, 1 if self._timed else workers
        self._tell, self._done = on_progress, 0
        dense = Trial(self._trained, (), self.recipe.seed)
        (self.dense,) = compute([("dense", dense)], self._place, cache, 1)
        bounds.require_reach(self.wanted.bounds, self.dense)

    @property
    def at_once(self) -> int:
        return self._workers

    def run(self, wanted: Sequence[Left], total: int) -> list[Results]:
        """The results at these levels; `total` is how many there will be in the end, roughly."""
        new = list(dict.fromkeys(left for left in wanted if left not in self.found))
        cells = [
            (self.title(left), Trial(self._trained, self.stages(left), self.recipe.seed, timed=self._timed))
            for left in new
        ]

        def on_progress(now: sweep.Progress) -> None:
            done = self._done + now.done
            each = None if now.seconds_left is None else now.seconds_left / max(1, now.total - now.done)
            rest = None if each is None else each * max(0, total - done)
            self._tell(dataclasses.replace(now, done=done, total=max(total, done), seconds_left=rest))

        for left, result in zip(new, compute(cells, self._place, self._cache, self._workers, on_progress), strict=True):
            self.found[left] = result
        self._done += len(new)
        return [self.found[left] for left in wanted]

    def final(self, left: Left) -> tuple[Results, Results]:
        """Of the dense network and of the one at these levels, trained on all training images: on the test images."""
        cells = [
            ("dense, on the test images", Trial(self._trained, (), self.recipe.seed, tuning=False)),
            (
                f"winner, on the test images: {self.title(left)}",
                Trial(self._trained, self.stages(left), self.recipe.seed, tuning=False, timed=self._timed),
            ),
        ]
        dense, winner = compute(cells, self._place, self._cache, self._workers)
        return dense, winner

    # --- what they come to ---

    @property
    def measure(self) -> str:
        """What a network's size is: what the bounds are on, else its parameters; if single weights go, the nonzero."""
        return size_measure(self.recipe, self.wanted)

    def size(self, result: Mapping[str, Any]) -> float:
        return size_of(result, self.measure)

    def quality(self, result: Mapping[str, Any]) -> float:
        """Smaller = better: what the bounds are on, or else wrong answers in percent or the loss; inf if it failed."""
        return math.inf if "failed" in result else bounds.measured(quality_kind(self.recipe, self.wanted), result)

    def holds(self, result: Mapping[str, Any]) -> bool:
        return "failed" not in result and all(self.keeps(bound, result) for bound in self.wanted.bounds)

    def keeps(self, bound: Bound, result: Mapping[str, Any]) -> bool:
        return self._bounded(bound, result) <= self.limit(bound)

    def excess(self, bound: Bound, result: Mapping[str, Any]) -> float:
        """By how much it is beyond the bound, relative to that."""
        return self._bounded(bound, result) / max(self.limit(bound), 1e-12) - 1

    def limit(self, bound: Bound) -> float:
        if bound.kind == "latency":
            return bound.value
        return bound.limit(
            self.dense | {"params": self._bounded(bound, self.dense)} if bound.kind == "params" else self.dense
        )

    def _bounded(self, bound: Bound, result: Mapping[str, Any]) -> float:
        """Where single weights go, parameters are those that are not zero."""
        return self.size(result) if bound.kind == "params" else bounds.measured(bound.kind, result)

    @property
    def complete(self) -> dict[Left, Results]:
        return {left: result for left, result in self.found.items() if "failed" not in result}

    def front(self) -> list[Left]:
        """What no other trial beats in both size and quality, the smallest first."""
        tried = list(self.complete)
        points = [(self.size(self.found[left]), self.quality(self.found[left])) for left in tried]
        return [tried[index] for index in pareto(points)]

    def ranked(self) -> list[Left]:
        """What keeps to the bounds, the winner first."""
        held = [left for left, result in self.found.items() if self.holds(result)]
        points = {left: (self.size(self.found[left]), self.quality(self.found[left])) for left in held}
        if self.wanted.goal == "best":
            return sorted(held, key=lambda left: points[left][::-1])
        return sorted(held, key=lambda left: points[left])

    def curve(self) -> list[tuple[int, Left]]:
        """Of a single layer of nodes: how many are left, rising, with the trial."""
        if len(self.recipe.stages) > 1 or not isinstance(self.recipe.stages[0].target, schema.Nodes):
            return []
        sizes = {}
        for left, result in self.complete.items():
            (stage,) = result["stages"]
            sizes[stage["of"] - stage["pruned"]] = left
        return sorted(sizes.items())


def size_measure(recipe: schema.Recipe, wanted: Wanted) -> str:
    sizes = [bound.kind for bound in wanted.bounds if bound.kind not in bounds.QUALITY]
    if sizes and sizes[0] != "params":
        return sizes[0]
    nodes = any(isinstance(stage.target, schema.Nodes) for stage in recipe.stages)
    return "params" if nodes else "nonzero"


def size_of(result: Mapping[str, Any], measure: str) -> float:
    """Of the dense network, which is not timed against itself, the latency is 1."""
    if measure == "latency":
        return float(result["latency"]["ratio"]) if "latency" in result else 1.0
    return float(result[measure])


def quality_kind(recipe: schema.Recipe, wanted: Wanted) -> bounds.Kind:
    kinds: list[bounds.Kind] = [bound.kind for bound in wanted.bounds if bound.kind in bounds.QUALITY]
    if kinds:
        return kinds[0]
    return "accuracy_drop" if recipe.task == "classify" and wanted.goal != "knee" else "loss"
