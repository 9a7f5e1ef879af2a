"""Optimal brain surgeon (Hassibi & Stork, "Second order derivatives for network pruning", 1993), layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from compress.graph.coupling import Coupling
    from compress.inputs import Inputs
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target


@dataclass(frozen=True)
class OBS(Criterion):
    """Prunes what layers miss least first when the rest makes up for it by least squares (optimal brain surgeon).

    The error is that of the layers' outputs, relative to how much they vary. Use it together with `compensate`.
    """

    words = ("obs",)
    needs_data = True
    adds_up = True

    samples: Samples = samples_option(500)

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select.compensation.importance import importance_of_weights
        from compress.select.scores import Scores

        found = importance_of_weights(scoring.model, [target.path for target in targets], self._calls(scoring))
        return [Scores.of(scores) for scores in found]

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        from compress.select.compensation.importance import importance_of_nodes

        return importance_of_nodes(scoring.model, coupled, self._calls(scoring))

    def _calls(self, scoring: Scoring) -> list[Inputs]:
        from compress.select.compensation.calls import calls_of

        return calls_of(scoring.model, scoring.batches(self, self.samples), {})
