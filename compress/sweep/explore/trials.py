"""The trials of a search so far: their sizes and qualities, which are within the bounds, and which form the front."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compress import __version__
from compress.recipe import schema
from compress.report.explored import size_of
from compress.run.building import build_task
from compress.sweep import jobs
from compress.sweep.cell_store import Cells
from compress.sweep.cells import Basis, compute
from compress.sweep.code import code_of
from compress.sweep.engines import ONE, Workers
from compress.sweep.explore import bounds, levels
from compress.sweep.explore.bounds import Bound
from compress.sweep.explore.front import pareto
from compress.sweep.explore.leakage import warn_if_familiar
from compress.sweep.explore.trial import Trial, network_of
from compress.sweep.trained import Trained
from compress.sweep_results import FoundNetwork, Goal, QualityKind, SizeKind, TrialNetwork, TrialResult
from compress.tasks import ranking

Left = tuple[float, ...]  # of each stage, the share that is left


@dataclass(frozen=True)
class Wanted:
    """The goal of a search.

    trials: the number of Optuna's trials; None: bisection for one stage, else TRIALS.
    levels: sparsities, or shares left if the stage has a budget, to bisect over; a grid if empty.
    """

    bounds: tuple[Bound, ...]
    goal: Goal
    trials: int | None = None
    levels: tuple[float, ...] = ()


class Trials:
    """The trials of a search, run on demand and kept as cells."""

    def __init__(
        self,
        trained: Trained,
        basis: Basis,
        wanted: Wanted,
        cells: Cells,
        workers: Workers = ONE,
        on_progress: Callable[[jobs.Progress], None] = lambda progress: None,
    ) -> None:
        """Measure the dense network.

        Raises:
            InputError: bounds decide nothing.
        """
        self.recipe, self.wanted = basis.recipe, wanted
        self.judged = ranking(build_task(basis.recipe.task))
        self._trained, self._basis, self._cells = trained, basis, cells
        self._tell, self._done = on_progress, 0
        self._timed = any(bound.kind == "latency" for bound in wanted.bounds)
        # A process that trains on another core would disturb the timing.
        self._workers = ONE if self._timed else workers
        self.found: dict[Left, TrialResult] = {}
        dense = Trial(trained, (), self.recipe.seed)
        (measured,) = compute([("dense", dense)], basis, cells, ONE)
        self.dense = network_of(measured)
        bounds.require_reach(wanted.bounds, self.dense, self.judged)
        for bound in wanted.bounds:
            if bound.kind in bounds.QUALITY:
                warn_if_familiar(bound, self.dense["metric"], trained, basis, cells)

    @property
    def at_once(self) -> int:
        """The number of trials that take as long as one."""
        return self._workers.count

    def stages(self, left: Left) -> tuple[schema.Stage, ...]:
        return tuple(levels.at(stage, share) for stage, share in zip(self.recipe.stages, left, strict=True))

    def title(self, left: Left) -> str:
        return "; ".join(map(levels.describe, self.stages(left)))

    @property
    def study(self) -> str:
        """A name for the search: a hash of everything that trials and bounds depend on, including the code."""
        whole = Trial(self._trained, self.recipe.stages, self.recipe.seed).key(self._basis)
        limits = [(bound.kind, bound.value, bound.relative) for bound in self.wanted.bounds]
        code = {"softprune": __version__, **code_of(self.recipe)}
        return jobs.fingerprint({"whole": whole, "bounds": limits, "goal": self.wanted.goal, "code": code})

    def run(self, wanted: Sequence[Left], total: int) -> list[TrialResult]:
        """The results at these levels; `total` is the approximate number of trials in the end."""
        new = list(dict.fromkeys(left for left in wanted if left not in self.found))
        cells = [
            (self.title(left), Trial(self._trained, self.stages(left), self.recipe.seed, timed=self._timed))
            for left in new
        ]

        def on_progress(now: jobs.Progress) -> None:
            done = self._done + now.done
            each = None if now.seconds_left is None else now.seconds_left / max(1, now.total - now.done)
            rest = None if each is None else each * max(0, total - done)
            self._tell(dataclasses.replace(now, done=done, total=max(total, done), seconds_left=rest))

        for left, result in zip(new, compute(cells, self._basis, self._cells, self._workers, on_progress), strict=True):
            self.found[left] = result
        self._done += len(new)
        return [self.found[left] for left in wanted]

    def final(self, left: Left) -> tuple[FoundNetwork, TrialResult]:
        """The dense network and the one at these levels, trained on all training samples, on the test samples."""
        cells = [
            ("dense, on the test samples", Trial(self._trained, (), self.recipe.seed, tuning=False)),
            (
                f"winner, on the test samples: {self.title(left)}",
                Trial(self._trained, self.stages(left), self.recipe.seed, tuning=False, timed=self._timed),
            ),
        ]
        dense, winner = compute(cells, self._basis, self._cells, self._workers)
        return network_of(dense), winner

    # --- results ---

    @property
    def measure(self) -> SizeKind:
        """The measure of size: the bounds' one, else parameters; if single weights are pruned, nonzero ones."""
        first = next((bound.kind for bound in self.wanted.bounds if bound.kind not in bounds.QUALITY), None)
        if first == "macs" or first == "latency":
            return first
        cut = any(not isinstance(stage.target, schema.Weights) for stage in self.recipe.stages)
        return "params" if cut else "nonzero"

    @property
    def kind(self) -> QualityKind:
        """The measure of quality: the bounds' one, else what ranks; for a knee, the loss."""
        for bound in self.wanted.bounds:
            if bound.kind == "loss" or bound.kind == "drop":
                return bound.kind
        return "drop" if self.judged.name != "loss" and self.wanted.goal != "knee" else "loss"

    def size(self, result: TrialNetwork) -> float:
        return size_of(result, self.measure)

    def quality(self, result: TrialNetwork) -> float:
        """The quality, smaller = better: the bounds' quantity, or else wrong answers in percent or the loss."""
        return bounds.measured(self.kind, result, self.judged)

    def holds(self, result: TrialResult) -> bool:
        if "failed" in result:
            return False
        return all(self.keeps(bound, result) for bound in self.wanted.bounds)

    def keeps(self, bound: Bound, result: TrialNetwork) -> bool:
        return self._bounded(bound, result) <= self.limit(bound)

    def excess(self, bound: Bound, result: TrialNetwork) -> float:
        """The excess over the bound, relative to the bound."""
        limit = self.limit(bound)
        return (self._bounded(bound, result) - limit) / max(abs(limit), 1e-12)

    def limit(self, bound: Bound) -> float:
        return bound.value if bound.kind == "latency" else bound.limit(self._bounded(bound, self.dense), self.judged)

    def _bounded(self, bound: Bound, result: TrialNetwork) -> float:
        if bound.kind == "params":  # if single weights are pruned, nonzero parameters count
            return self.size(result)
        return bounds.measured(bound.kind, result, self.judged)

    @property
    def complete(self) -> dict[Left, FoundNetwork]:
        return {left: result for left, result in self.found.items() if "failed" not in result}

    def front(self) -> list[Left]:
        """The trials that no other one beats in both size and quality, the smallest first."""
        tried = list(self.complete.items())
        points = [(self.size(result), self.quality(result)) for _, result in tried]
        return [tried[index][0] for index in pareto(points)]

    def ranked(self) -> list[Left]:
        """The trials within the bounds, the winner first."""
        held = {left: result for left, result in self.complete.items() if self.holds(result)}
        points = {left: (self.size(result), self.quality(result)) for left, result in held.items()}
        if self.wanted.goal == "best":
            return sorted(held, key=lambda left: points[left][::-1])
        return sorted(held, key=lambda left: points[left])

    def curve(self) -> list[tuple[int, Left]]:
        """The number of nodes that the single stage has left, rising, with its trial."""
        sizes = {}
        for left, result in self.complete.items():
            (stage,) = result["stages"]
            sizes[stage["of"] - stage["pruned"]] = left
        return sorted(sizes.items())
