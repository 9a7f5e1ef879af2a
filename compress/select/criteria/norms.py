"""Norms: the norm of a node's incoming weights times the norm of its outgoing ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion
from compress.select.criteria.magnitude import row_norm

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scoring import Scoring


def norms(incoming: Sequence[Tensor], outgoing: Sequence[Tensor]) -> Tensor:
    """Norm of a node's incoming weights times norm of its outgoing ones: [nodes] from matrices [nodes, entries].

    The product and not the sum, because it does not change when a node's incoming weights are multiplied by c and its
    outgoing ones divided by it, which for ReLU (and near 0 for tanh) leaves the network's outputs as they are.
    """
    import torch

    rows, columns = (torch.cat([matrix.detach() for matrix in side], dim=1) for side in (incoming, outgoing))
    return row_norm(rows) * row_norm(columns)


@dataclass(frozen=True)
class Norms(Criterion):
    """Prunes the node with the smallest product of the norms of its rows and its columns first."""

    words = ("norms",)
    per_entry = True

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        return {coupling: self._of(coupling, scoring) for coupling in coupled}

    def _of(self, coupling: Coupling, scoring: Scoring) -> Tensor:
        """All rows and biases of each node, and all its columns, if it has any."""
        import torch

        from compress.select.members import values

        sides: dict[str, list[Tensor]] = {"writes": [], "reads": [], "follows": []}
        for member in coupling.members:
            sides[member.role].append(member.matrix(values(scoring.model, member)))
        if not sides["reads"]:  # summed over without weights, as queries and keys are
            return row_norm(torch.cat(sides["writes"], dim=1))
        return norms(sides["writes"], sides["reads"])
