"""Taylor: the change of the loss to first order (Molchanov et al., "Importance estimation ...", 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.options import option
from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target


def taylor(weight: Tensor, mean_abs: Tensor) -> Tensor:
    """Mean over batches of |w * g|; `mean_abs` is the mean of |g|."""
    return weight.detach().abs() * mean_abs


def taylor_square(weight: Tensor, mean_square: Tensor) -> Tensor:
    """Mean over batches of (w * g)^2; `mean_square` is the mean of g^2 (Molchanov et al. 2019, eq. 8)."""
    return weight.detach().square() * mean_square


@dataclass(frozen=True)
class Taylor(Criterion):
    """Prunes the weight with the smallest |w g| (taylor) or (w g)^2 (taylor_square) first, g the loss's gradient.

    For a node, w g is summed over all columns that read it.
    """

    words = ("taylor", "taylor_square")
    needs_data = True
    needs_loss = True

    square: bool = option("square the change of the loss of each batch, instead of its absolute value", False)
    samples: Samples = samples_option(5000)

    @classmethod
    def decided_by(cls, word: str) -> Mapping[str, Any]:
        return {"square": word == "taylor_square"}

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select import first_order, gradients

        score, statistic = (taylor_square, gradients.mean_square) if self.square else (taylor, gradients.mean_abs)
        return first_order.score_weights(targets, score, statistic, scoring, self)

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        from compress.select import first_order

        return first_order.score_nodes(coupled, self.word, scoring, self)
