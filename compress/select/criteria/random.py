"""Random scores: the baseline that every criterion must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target


def random(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform in [0, 1), drawn on the CPU."""
    import torch

    return torch.rand(weight.shape, generator=generator).to(weight.device)


@dataclass(frozen=True)
class Random(Criterion):
    """Prunes at random, by the seed."""

    words = ("random",)
    measures = False

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select.scores import Scores
        from compress.shards import spread

        # Each process draws the whole tensor, and keeps its part: the numbers are those of one process.
        return [Scores.of(spread(random(each.parameter, scoring.generator), each.parameter)) for each in targets]

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        import torch

        return {coupling: torch.rand(coupling.size, generator=scoring.generator) for coupling in coupled}
