"""Softer filter pruning: as SFP, with a factor that falls from 1 to 0 over the run.

He et al., "Softer Pruning, Incremental Regularization", 2020 (SRFP).
"""

from dataclasses import dataclass

from compress.remove.removals.sfp import SFP


@dataclass(frozen=True)
class SRFP(SFP):
    """Like sfp, but entries are multiplied by a factor that falls from 1 to 0 over the removal (He, 2020)."""

    words = ("srfp",)

    def factor_at(self, step: int) -> float:
        return 1.0 - step / self.steps
