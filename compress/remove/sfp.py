"""Soft filter pruning: what ranks lowest is lowered again and again, and may grow back in between.

He et al., "Soft Filter Pruning for Accelerating Deep CNNs", 2018 (SFP): zeroed at every interval. He et al.,
"Softer Pruning, Incremental Regularization", 2020 (SRFP): multiplied by a factor that falls from 1 to 0 over the run.
"""

from compress.remove.pruner import Pruner, Removal


class Filters(Removal):
    """Lower the lowest, chosen anew `every` so many steps; whatever ranks lowest at step `steps` goes for good.

    Args:
        softer: SRFP instead of SFP.
    """

    learns = True

    def __init__(self, steps: int, every: int, *, softer: bool = False) -> None:
        self.steps, self.every, self.softer = steps, every, softer

    def start(self, pruner: Pruner) -> None:
        self._lower(pruner, 0)

    def advance(self, pruner: Pruner, step: int) -> None:
        if step % self.every == 0:
            self._lower(pruner, step)

    def finish(self, pruner: Pruner) -> None:
        pruner.take()
        pruner.fade_to(0.0)

    def _lower(self, pruner: Pruner, step: int) -> None:
        pruner.take()
        pruner.shrink(1.0 - step / self.steps if self.softer else 0.0)
