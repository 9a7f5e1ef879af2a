"""Regrowth: which removed entries come back, by the gradient that they would get.

Evci et al., "Rigging the lottery: making all tickets winners", 2020 (RigL). The zero entry with the
steepest loss can lower it most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.options import check_options, option
from compress.select.criteria.criterion import Samples

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Regrowth:
    """At each selection of a gradual removal, the removed weights with the largest |gradient| grow back from zero, and
    as many others are pruned instead (RigL; Evci, 2020)."""

    share: float = option(
        "share of the kept weights that grow back, or of the removed weights if these are fewer; it falls to 0 along "
        "half a cosine until the set is complete",
        gt=0,
        lt=1,
    )
    samples: Samples = option("number of training samples for the gradient, the first ones, or all", 500, ge=1)

    word = "regrow"

    def __post_init__(self) -> None:
        check_options(self)


def share_at(share: float, progress: float) -> float:
    """`share` at the progress 0, nothing at 1, by half a cosine: late entries would have no time left to grow."""
    return share * (1.0 + math.cos(math.pi * progress)) / 2.0


def returning(slopes: Sequence[Tensor], zero: Sequence[Tensor], may: Sequence[Tensor], share: float) -> list[Tensor]:
    """Mark the entries that come back: those with the largest |gradient| of all tensors together.

    Args:
        slopes: the gradient of the loss in every entry as it acts now, which is dense: zeros have one too.
        zero: bool, which are zero. may: bool, which of these may come back.
        share: of the living entries, or of those that may come back where these are fewer; rounded to whole entries.

    Returns:
        Bool tensors of the slopes' shapes; among equal gradients the first ones.
    """
    from compress.select.choose import lowest
    from compress.select.scores import Scores
    from compress.shards import true_in

    living = sum(dead.numel() for dead in zero) - sum(true_in(zero))
    count = round(share * min(living, sum(true_in(may))))
    return lowest([Scores(_steepest_first, slope, mask) for slope, mask in zip(slopes, may, strict=True)], count)


def _steepest_first(slope: Tensor, may: Tensor) -> Tensor:
    return slope.abs().neg_().masked_fill_(~may, math.inf)
