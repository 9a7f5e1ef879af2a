"""SNIP: connection sensitivity (Lee et al., "SNIP: single-shot network pruning", 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target


def snip(weight: Tensor, mean: Tensor) -> Tensor:
    """|w * g| with g the gradient of the mean loss. Lee divides by the sum over the network, which changes no rank."""
    return (weight.detach() * mean).abs()


@dataclass(frozen=True)
class Snip(Criterion):
    """Prunes the weight with the smallest |w mean g| first, g the loss's gradient (Lee, 2019).

    For a node, w g is summed over all columns that read it.
    """

    words = ("snip",)
    needs_data = True
    needs_loss = True

    samples: Samples = samples_option(5000)

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select import first_order, gradients

        return first_order.score_weights(targets, snip, gradients.mean, scoring, self)

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        from compress.select import first_order

        return first_order.score_nodes(coupled, self.word, scoring, self)
