"""Variance of a node's activation, as its readers see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scoring import Scoring


@dataclass(frozen=True)
class Variance(Criterion):
    """Prunes the node whose activation, as its readers see it, varies least between samples first."""

    words = ("variance",)
    needs_data = True
    watches_layers = True

    samples: Samples = samples_option(5000)

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        from compress.select.activations import variance
        from compress.select.members import taps

        seen = {str(index): taps(scoring.model, coupling)[0] for index, coupling in enumerate(coupled)}
        found = variance(scoring.model, seen, scoring.batches(self, self.samples))
        return dict(zip(coupled, found.values(), strict=True))
