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


def row_norm(weight: Tensor, dim: int = 0) -> Tensor:
    """Euclidean norm of each node's incoming weights: [nodes] from the weight of its layer, nodes along `dim`."""
    other = [axis for axis in range(weight.dim()) if axis != dim]
    return weight.detach().square().sum(dim=other).sqrt()


@dataclass(frozen=True)
class Magnitude(Criterion):
    """Prunes the smallest |weight| first; for nodes, the node whose rows have the smallest norm."""

    words = ("magnitude",)
    per_entry = True

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select.scores import Scores

        return [Scores(magnitude, target.parameter) for target in targets]

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        import torch

        from compress.select.members import rows

        return {coupling: row_norm(torch.cat(rows(scoring.model, coupling), dim=1)) for coupling in coupled}
