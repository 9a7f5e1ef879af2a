"""LAMP: layer-adaptive magnitude (Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target


def lamp(weight: Tensor) -> Tensor:
    """w_u^2 / sum of w_v^2 over all v with |w_v| >= |w_u|, within the tensor: float64.

    Each tensor's largest entry has the score 1, so that a global ranking never prunes a whole layer.
    """
    import torch

    squares = weight.detach().double().flatten().square()
    ascending = squares.sort().values
    upward = ascending.flip(0).cumsum(0).flip(0)
    # The first of several equal entries counts them all.
    rest = upward[torch.searchsorted(ascending, squares)]
    return torch.where(squares > 0, squares / rest, 0.0).view(weight.shape)


@dataclass(frozen=True)
class Lamp(Criterion):
    """Prunes the smallest w^2 first, as a share of all squares in its tensor that are at least as large (Lee, 2021)."""

    words = ("lamp",)

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select.scores import Scores
        from compress.shards import gathered, spread

        # What is above an entry is in all parts of its tensor: one whole tensor at a time.
        return [Scores.of(spread(lamp(gathered(each.parameter.detach())), each.parameter)) for each in targets]
