"""Soft filter pruning: the lowest are zeroed again and again, and may grow back in between.

He et al., "Soft Filter Pruning for Accelerating Deep CNNs", 2018 (SFP).
"""

from dataclasses import dataclass

from compress.remove.removals.removal import Driver, Removal, every_option, steps_option


@dataclass(frozen=True)
class SFP(Removal):
    """The entries with the lowest scores are zeroed repeatedly, and may grow back in between (He, 2018)."""

    words = ("sfp",)
    learns = True

    steps: int = steps_option("length of the removal; three quarters of the retraining if absent")
    every: int = every_option("the time between two selections")

    def start(self, driver: Driver) -> None:
        self._lower(driver, 0)

    def advance(self, driver: Driver, step: int) -> None:
        if step % self.every == 0:
            self._lower(driver, step)

    def finish(self, driver: Driver) -> None:
        driver.take()
        driver.fade_to(0.0)

    def factor_at(self, step: int) -> float:
        """The factor of the lowest."""
        return 0.0

    def _lower(self, driver: Driver, step: int) -> None:
        driver.take()
        driver.shrink(self.factor_at(step))
