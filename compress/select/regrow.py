"""Regrowth: which of the entries that are gone come back, by the gradient that they would get.

Evci et al., "Rigging the lottery: making all tickets winners", 2020 (RigL). Where the loss is steepest in an entry that
is zero, the entry can do most for it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compress.select.choose import lowest
from compress.select.scores import Scores


def share_at(share: float, progress: float) -> float:
    """`share` at the progress 0, nothing at 1, by half a cosine: what comes back late has no time left to grow."""
    return share * (1.0 + math.cos(math.pi * progress)) / 2.0


def returning(slopes: Sequence[Tensor], gone: Sequence[Tensor], may: Sequence[Tensor], share: float) -> list[Tensor]:
    """Mark the entries that come back: those with the largest |gradient| of all tensors together.

    Args:
        slopes: the gradient of the loss in every entry as it acts now, which is dense: zeros have one too.
        gone: bool, what is zero. may: bool, which of these may come back.
        share: of the living entries, or of those that may come back where these are fewer; rounded to whole entries.

    Returns:
        Bool tensors of the slopes' shapes; among equal gradients the first ones.
    """
    living = sum(dead.numel() - int(dead.count_nonzero()) for dead in gone)
    count = round(share * min(living, sum(int(mask.count_nonzero()) for mask in may)))
    return lowest([Scores(_steepest_first, slope, mask) for slope, mask in zip(slopes, may, strict=True)], count)


def _steepest_first(slope: Tensor, may: Tensor) -> Tensor:
    return torch.where(may, -slope.abs(), torch.inf)
