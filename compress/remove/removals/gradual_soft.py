"""Gradual soft pruning: the set grows along a ramp, and every cohort that joins it decays.

An entry that no longer ranks among the lowest leaves the set, unless it is removed already.
"""

from dataclasses import dataclass

from compress.errors import InputError
from compress.options import option
from compress.remove.removals.removal import Driver, Removal, every_option, steps_option
from compress.select.ramp import level
from compress.wording import count_of

COHORT = 0.25
"""The share of the removal in which a cohort is removed, by default."""


@dataclass(frozen=True)
class GradualSoft(Removal):
    """Like gradual, but entries that join the set decay; they may leave it until they are zero."""

    words = ("gradual_soft",)
    cohorts = True
    grows = True

    steps: int = steps_option("length of the removal; three quarters of the retraining if absent")
    every: int = every_option("the time between two steps of the ramp")
    cohort: int | None = option(
        "time from joining the set to removal; a quarter of the length if absent", None, ge=1, duration=True
    )
    final: float = option("share of the start value at which the last entries are set to zero", 1e-3, gt=0, lt=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decaying >= self.steps:
            raise InputError(
                f"a cohort takes {count_of(self.decaying, 'step')} to be removed and everything is to be removed after "
                f"{self.steps}: which leaves no time for a ramp; shorten `cohort`, or use soft removal"
            )

    @property
    def decaying(self) -> int:
        """Steps until a cohort is removed."""
        return round(COHORT * self.steps) if self.cohort is None else self.cohort

    @property
    def ramp(self) -> int:
        """Steps until the set is complete."""
        return self.steps - self.decaying

    def start(self, driver: Driver) -> None:
        driver.take(0.0)

    def advance(self, driver: Driver, step: int) -> None:
        if self._takes(step):
            driver.take(level(step / self.ramp))
        if not self.decaying:  # a quarter of a step or two rounds to 0
            driver.fade_to(0.0)
            return
        driver.fade_by(self.final ** (1 / self.decaying))
        joined = step - self.decaying + 1  # entries that joined then have decayed `decaying` times with this step
        if self._takes(joined):
            driver.cut(joined)

    def finish(self, driver: Driver) -> None:
        driver.take()
        driver.fade_to(0.0)

    def _takes(self, step: int) -> bool:
        """Whether a cohort joins at this step."""
        return step == self.ramp or (0 < step < self.ramp and step % self.every == 0)
