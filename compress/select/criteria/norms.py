"""Norms: the norm of a node's incoming weights times the norm of its outgoing ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scoring import Scoring


@dataclass(frozen=True)
class Norms(Criterion):
    """Prunes the node with the smallest product of the norms of its rows and its columns first.

    The product and not the sum, because it does not change when a node's incoming weights are multiplied by c and its
    outgoing ones divided by it, which for ReLU (and near 0 for tanh) leaves the network's outputs as they are.
    """

    words = ("norms",)
    per_entry = True

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        return {coupling: self._of(coupling, scoring) for coupling in coupled}

    def _of(self, coupling: Coupling, scoring: Scoring) -> Tensor:
        """All rows and biases of each node, and all its columns, if it has any."""
        from compress.select.members import readers
        from compress.select.node_norms import node_norms

        incoming = node_norms(scoring.model, [member for member in coupling.members if member.role == "writes"])
        reading = readers(coupling)  # none where the nodes are summed over without weights, as queries and keys are
        return incoming * node_norms(scoring.model, reading) if reading else incoming
