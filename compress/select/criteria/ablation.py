"""Ablation: brute force, one node or branch after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import BranchCost, NodeScores
    from compress.select.scoring import Scoring


@dataclass(frozen=True)
class Ablation(Criterion):
    """Prunes the node or branch whose removal raises the loss least first; needs a pass over the samples for each.

    Without a loss, branches are removed whose absence changes the outputs least.
    """

    words = ("ablation",)
    needs_data = True
    needs_loss = True
    watches_layers = True

    samples: Samples = samples_option(1000)

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        from compress.select.activations import ablation
        from compress.select.members import taps

        zeroed = {str(index): taps(scoring.model, coupling) for index, coupling in enumerate(coupled)}
        found = ablation(scoring.model, zeroed, scoring.batches(self, self.samples), scoring.loss(self))
        return dict(zip(coupled, found.values(), strict=True))

    def branch_cost(self, scoring: Scoring) -> BranchCost:
        from compress.select.branch_ablation import Ablated

        return Ablated.of(scoring, self, self.samples)
