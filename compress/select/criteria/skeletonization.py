"""Skeletonization (Mozer & Smolensky, 1988; paper, eq. 2-3); `compress.select.saliency` computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from compress.options import option
from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scoring import Scoring


@dataclass(frozen=True)
class Skeletonization(Criterion):
    """Prunes the node whose factor a has the smallest |dE/da| first (Mozer & Smolensky, 1988; paper, eq. 2-3)."""

    words = ("skeletonization",)
    needs_data = True
    needs_loss = True
    watches_layers = True

    error: Literal["loss", "linear"] = option("E: the training loss, or the linear error sum|t - o|", "loss")
    reduce: Literal["sum", "abs", "square"] = option(
        "how to add the samples' derivatives: unchanged (the paper), absolute, or squared", "square"
    )
    samples: Samples = samples_option(5000)

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        """Added up over all layers that compute a node, and over the outputs that are its (before an Unflatten)."""
        import torch

        from compress.graph.flow import layer_of
        from compress.select.members import computing
        from compress.select.saliency import skeletonization

        members = {coupling: computing(scoring.model, coupling) for coupling in coupled}
        layers = list(dict.fromkeys(layer_of(member.tensor) for found in members.values() for member in found))
        batches, loss = scoring.batches(self, self.samples), scoring.loss(self, linear=self.error == "linear")
        found = skeletonization(scoring.model, layers, batches, loss, reduce=self.reduce)
        return {
            coupling: torch.stack([member.per_node(found[layer_of(member.tensor)]) for member in own]).sum(0)
            for coupling, own in members.items()
        }
