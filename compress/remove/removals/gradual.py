"""Gradual pruning (Zhu & Gupta, "To prune, or not to prune", 2017): the set grows along a cubic ramp."""

from dataclasses import dataclass

from compress.remove.removals.removal import Driver, Removal, every_option, steps_option
from compress.select.ramp import level


@dataclass(frozen=True)
class Gradual(Removal):
    """The set grows along a cubic ramp, is selected again at each step, and is zeroed at once (Zhu & Gupta, 2017)."""

    words = ("gradual",)
    grows = True

    steps: int = steps_option("length of the removal; three quarters of the retraining if absent")
    every: int = every_option("the time between two steps of the ramp")

    def start(self, driver: Driver) -> None:
        driver.take(0.0)

    def advance(self, driver: Driver, step: int) -> None:
        if step % self.every == 0:
            driver.take(level(step / self.steps))
        driver.fade_to(0.0)

    def finish(self, driver: Driver) -> None:
        driver.take()
        driver.fade_to(0.0)
