"""The trials of a search so far: how large and how good each is, what keeps to the bounds, and what no other beats."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compress import __version__
from compress.recipe import schema
from compress.report.explored import size_of
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

Left = tuple[float, ...]  # of each stage, the share that is left


@dataclass(frozen=True)
class Wanted:
    """What is searched for.

    trials: how many Optuna is to make; None: bisection where there is one stage, else TRIALS.
    levels: sparsities, or shares left where the stage has a budget, to bisect over; a grid if there are none.
    """

    bounds: tuple[Bound, ...]
    goal: Goal
    trials: int | None = None
    levels: tuple[float, ...] = ()


class Trials:
    """The trials of a search, run as they are asked for and kept as cells."""

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
            InputError: bounds that decide nothing.
        """
        self.recipe, self.wanted = basis.recipe, wanted
        self._trained, self._basis, self._cells = trained, basis, cells
        self._tell, self._done = on_progress, 0
        self._timed = any(bound.kind == "latency" for bound in wanted.bounds)
        # A process that trains on the other core would be timed as well.
        self._workers = ONE if self._timed else workers
        self.found: dict[Left, TrialResult] = {}
        dense = Trial(trained, (), self.recipe.seed)
        (measured,) = compute([("dense", dense)], basis, cells, ONE)
        self.dense = network_of(measured)
        bounds.require_reach(wanted.bounds, self.dense)
        for bound in wanted.bounds:
            if bound.relative_quality:
                warn_if_familiar(bound, self.dense["metric"], trained, basis, cells)

    @property
    def at_once(self) -> int:
        """How many trials cost as much time as one."""
        return self._workers.count

    def stages(self, left: Left) -> tuple[schema.Stage, ...]:
        return tuple(levels.at(stage, share) for stage, share in zip(self.recipe.stages, left, strict=True))

    def title(self, left: Left) -> str:
        return "; ".join(map(levels.describe, self.stages(left)))

    @property
    def study(self) -> str:
        """A name for what is searched: a hash of everything that trials and bounds depend on, the code included."""
        whole = Trial(self._trained, self.recipe.stages, self.recipe.seed).key(self._basis)
        limits = [(bound.kind, bound.value, bound.relative) for bound in self.wanted.bounds]
        code = {"softprune": __version__, **code_of(self.recipe)}
        return jobs.fingerprint({"whole": whole, "bounds": limits, "goal": self.wanted.goal, "code": code})

    def run(self, wanted: Sequence[Left], total: int) -> list[TrialResult]:
        """The results at these levels; `total` is how many there will be in the end, roughly."""
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
        """Of the dense network and of the one at these levels, trained on all training images: on the test images."""
        cells = [
            ("dense, on the test images", Trial(self._trained, (), self.recipe.seed, tuning=False)),
            (
                f"winner, on the test images: {self.title(left)}",
                Trial(self._trained, self.stages(left), self.recipe.seed, tuning=False, timed=self._timed),
            ),
        ]
        dense, winner = compute(cells, self._basis, self._cells, self._workers)
        return network_of(dense), winner

    # --- what they come to ---

    @property
    def measure(self) -> SizeKind:
        """What a network's size is: what the bounds are on, else its parameters; if single weights go, the nonzero."""
        first = next((bound.kind for bound in self.wanted.bounds if bound.kind not in bounds.QUALITY), None)
        if first == "macs" or first == "latency":
            return first
        nodes = any(isinstance(stage.target, schema.Nodes) for stage in self.recipe.stages)
        return "params" if nodes else "nonzero"

    @property
    def kind(self) -> QualityKind:
        """What quality is: what the bounds are on, else the accuracy where there is one; of a knee, the loss."""
        for bound in self.wanted.bounds:
            if bound.kind == "loss" or bound.kind == "accuracy_drop":
                return bound.kind
        return "accuracy_drop" if schema.has_accuracy(self.recipe.task) and self.wanted.goal != "knee" else "loss"

    def size(self, result: TrialNetwork) -> float:
        return size_of(result, self.measure)

    def quality(self, result: TrialNetwork) -> float:
        """Smaller = better: what the bounds are on, or else wrong answers in percent or the loss."""
        return bounds.measured(self.kind, result)

    def holds(self, result: TrialResult) -> bool:
        if "failed" in result:
            return False
        return all(self.keeps(bound, result) for bound in self.wanted.bounds)

    def keeps(self, bound: Bound, result: TrialNetwork) -> bool:
        return self._bounded(bound, result) <= self.limit(bound)

    def excess(self, bound: Bound, result: TrialNetwork) -> float:
        """By how much it is beyond the bound, relative to that."""
        return self._bounded(bound, result) / max(self.limit(bound), 1e-12) - 1

    def limit(self, bound: Bound) -> float:
        return bound.value if bound.kind == "latency" else bound.limit(self._bounded(bound, self.dense))

    def _bounded(self, bound: Bound, result: TrialNetwork) -> float:
        if bound.kind == "params":  # where single weights are pruned, those that are not zero
            return self.size(result)
        return bounds.measured(bound.kind, result)

    @property
    def complete(self) -> dict[Left, FoundNetwork]:
        return {left: result for left, result in self.found.items() if "failed" not in result}

    def front(self) -> list[Left]:
        """What no other trial beats in both size and quality, the smallest first."""
        tried = list(self.complete.items())
        points = [(self.size(result), self.quality(result)) for _, result in tried]
        return [tried[index][0] for index in pareto(points)]

    def ranked(self) -> list[Left]:
        """What keeps to the bounds, the winner first."""
        held = {left: result for left, result in self.complete.items() if self.holds(result)}
        points = {left: (self.size(result), self.quality(result)) for left, result in held.items()}
        if self.wanted.goal == "best":
            return sorted(held, key=lambda left: points[left][::-1])
        return sorted(held, key=lambda left: points[left])

    def curve(self) -> list[tuple[int, Left]]:
        """How many nodes the one stage has left, rising, with the trial."""
        sizes = {}
        for left, result in self.complete.items():
            (stage,) = result["stages"]
            sizes[stage["of"] - stage["pruned"]] = left
        return sorted(sizes.items())
