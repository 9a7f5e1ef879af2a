"""Soft filter pruning: what ranks lowest is zeroed again and again, and may grow back in between.

He et al., "Soft Filter Pruning for Accelerating Deep CNNs", 2018 (SFP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.remove.removals.removal import Removal, every_option, steps_option

if TYPE_CHECKING:
    from compress.remove.remover import Remover


@dataclass(frozen=True)
class SFP(Removal):
    """The lowest are zeroed again and again, and may grow back in between (He, 2018)."""

    words = ("sfp",)
    learns = True

    steps: int = steps_option("removed for good after so long; three quarters of the retraining if absent")
    every: int = every_option("the time between two choices")

    def start(self, remover: Remover) -> None:
        self._lower(remover, 0)

    def advance(self, remover: Remover, step: int) -> None:
        if step % self.every == 0:
            self._lower(remover, step)

    def finish(self, remover: Remover) -> None:
        remover.take()
        remover.fade_to(0.0)

    def factor_at(self, step: int) -> float:
        """What the lowest are multiplied by."""
        return 0.0

    def _lower(self, remover: Remover, step: int) -> None:
        remover.take()
        remover.shrink(self.factor_at(step))
