"""Magnitude, the oldest criterion and the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target


def magnitude(weight: Tensor) -> Tensor:
    """|w|."""
    return weight.detach().abs()


@dataclass(frozen=True)
class Magnitude(Criterion):
    """Prunes the smallest |weight| first; for nodes, the node whose rows have the smallest norm."""

    words = ("magnitude",)
    per_entry = True

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select.scores import Scores

        return [Scores(magnitude, target.parameter) for target in targets]

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        from compress.select.members import writers
        from compress.select.node_norms import node_norms

        return {coupling: node_norms(scoring.model, writers(scoring.model, coupling)) for coupling in coupled}
