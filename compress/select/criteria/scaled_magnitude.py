"""Magnitude scaled by the fan-in, so that no layer is emptied only because its weights are many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target


def scaled_magnitude(weight: Tensor, fan_in: int | None = None) -> Tensor:
    """|w| * sqrt(fan-in).

    Initial weights have a standard deviation of about 1 / sqrt(fan-in) (LeCun 1998; Glorot & Bengio 2010), which this
    cancels.

    Args:
        fan_in: how many inputs an output adds up; by default weight[0].numel(), as for a Linear or a convolution. A
            transposed convolution lies the other way round: see the function `fan_in`.
    """
    return weight.detach().abs() * math.sqrt(weight[0].numel() if fan_in is None else fan_in)


def fan_in(module: nn.Module, weight: Tensor) -> int:
    """How many inputs an output of `module` adds up; 1 for a bias, which is a weight on the constant 1.

    A transposed convolution's weight is [in, out / groups, *kernel]: its outputs add up in / groups * kernel inputs
    at stride 1, and no more at a larger one.
    """
    from torch.nn.modules.conv import _ConvTransposeNd

    if weight.dim() < 2:
        return 1
    if isinstance(module, _ConvTransposeNd):
        return weight.shape[0] // module.groups * math.prod(weight.shape[2:])
    return math.prod(weight.shape[1:])


@dataclass(frozen=True)
class ScaledMagnitude(Criterion):
    """Prunes the smallest |weight| * sqrt(fan-in) first, so that layers with small weights are not emptied."""

    words = ("scaled_magnitude",)
    watches_layers = True

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select.scores import Scores

        return [
            Scores(partial(scaled_magnitude, fan_in=fan_in(target.module, target.parameter)), target.parameter)
            for target in targets
        ]
