"""Gradual pruning (Zhu & Gupta, "To prune, or not to prune", 2017): the set grows along a cubic ramp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.remove.removals.removal import Removal, every_option, steps_option
from compress.select.ramp import level

if TYPE_CHECKING:
    from compress.remove.remover import Remover


@dataclass(frozen=True)
class Gradual(Removal):
    """A set that grows along a cubic ramp, chosen again at each of its steps, zeroed at once (Zhu & Gupta, 2017)."""

    words = ("gradual",)
    grows = True

    steps: int = steps_option("removed after so long; three quarters of the retraining if absent")
    every: int = every_option("the time between two steps of the ramp")

    def start(self, remover: Remover) -> None:
        remover.take(0.0)

    def advance(self, remover: Remover, step: int) -> None:
        if step % self.every == 0:
            remover.take(level(step / self.steps))
        remover.fade_to(0.0)

    def finish(self, remover: Remover) -> None:
        remover.take()
        remover.fade_to(0.0)
