"""Gradual pruning: the set grows along a ramp, and is chosen anew at each of its steps.

Zhu & Gupta, "To prune, or not to prune", 2017: s(t) = s * (1 - (1 - t / ramp)**3), entries go at once. Gradual soft
pruning lets every cohort decay instead: what joins the set at one step of the ramp is gone `cohort` steps later. A
member that no longer ranks among the lowest leaves the set, as long as it is not gone.
"""

from compress.errors import InputError
from compress.remove.decay import GONE
from compress.remove.pruner import Pruner, Removal


def level(progress: float) -> float:
    """The share of all that goes in the end which is in the set at this progress of the ramp, in [0, 1]."""
    return 1.0 - (1.0 - progress) ** 3


def progress_at(level: float) -> float:
    """The inverse of `level`; what rounding puts above 1 counts as 1."""
    return float(1.0 - max(0.0, 1.0 - level) ** (1 / 3))


class Gradual(Removal):
    """A cubic ramp of cohorts.

    Args:
        ramp: steps until the set is complete.
        every: steps between two cohorts.
        cohort: steps until a cohort is gone, by exponential decay; 0 is at once.
        final: the share of its start at which a member is cut.

    Raises:
        InputError: no ramp, or no steps between cohorts.
    """

    def __init__(self, ramp: int, every: int, cohort: int = 0, *, final: float = GONE) -> None:
        if ramp < 1 or every < 1 or cohort < 0:
            raise InputError(f"a ramp over {ramp} steps, every {every}, cohorts of {cohort}: 1, 1 and 0 are the least")
        self.ramp, self.every, self.cohort = ramp, every, cohort
        self.steps = ramp + cohort
        self.cohorts = cohort > 0
        self.factor = final ** (1 / cohort) if cohort else 0.0

    def start(self, pruner: Pruner) -> None:
        pruner.take(0.0)

    def advance(self, pruner: Pruner, step: int) -> None:
        if self._takes(step):
            pruner.take(level(step / self.ramp))
        if not self.cohort:
            pruner.fade_to(0.0)
            return
        pruner.fade_by(self.factor)
        joined = step - self.cohort + 1  # whoever joined then has faded `cohort` times with this step
        if self._takes(joined):
            pruner.cut(joined)

    def _takes(self, step: int) -> bool:
        """Whether a cohort joins at this step."""
        return step == self.ramp or (0 < step < self.ramp and step % self.every == 0)

    def finish(self, pruner: Pruner) -> None:
        pruner.take()
        pruner.fade_to(0.0)
