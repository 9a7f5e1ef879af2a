"""A criterion whose scores are kept, where several selections choose from the same network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compress.select.criteria.criterion import Criterion

if TYPE_CHECKING:
    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scoring import Scoring


class RankedOnce(Criterion):
    """Another criterion, which scores the same nodes once: all networks must have the same weights."""

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion
        self._scores: NodeScores = {}

    @classmethod
    def of(cls, criterion: Criterion) -> Criterion:
        """The criterion itself where it changes the network, or does not rank nodes."""
        plain = type(criterion).restructure is Criterion.restructure and criterion.ranks_nodes()
        return cls(criterion) if plain else criterion

    def __getattribute__(self, name: str) -> Any:
        own = name.startswith("_") or name in ("score_nodes", "of")
        return super().__getattribute__(name) if own else getattr(self._criterion, name)

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        if not self._scores.keys() >= set(coupled):
            self._scores = self._criterion.score_nodes(coupled, scoring)
        return {coupling: self._scores[coupling] for coupling in coupled}
