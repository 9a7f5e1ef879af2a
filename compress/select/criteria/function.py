"""A criterion that is a function of the user's: a tensor of weights -> a score for each of its entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.errors import InputError
from compress.select.criteria.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scores import Scores
    from compress.select.scoring import ScoreFunction, Scoring
    from compress.select.targets import Target


@dataclass(frozen=True)
class FunctionCriterion(Criterion):
    """Prunes what the function scores lowest first; a node has the sum of the scores of all its entries."""

    words = ()
    per_entry = True

    function: ScoreFunction

    @property
    def word(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        from compress.select.scores import Scores
        from compress.shards import gathered, spread

        # The function may look at all entries of a tensor, so it gets whole ones, one at a time.
        found = ((each.parameter, self._scores(gathered(each.parameter.detach()), each.path)) for each in targets)
        return [Scores.of(spread(scores, parameter)) for parameter, scores in found]

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        import torch

        from compress.select.members import values

        found = {}
        for coupling in coupled:
            members = [member for member in coupling.members if member.role != "follows"]
            entries = [member.matrix(self._scores(values(scoring.model, member), member.tensor)) for member in members]
            found[coupling] = torch.cat([scores.double() for scores in entries], dim=1).sum(1)
        return found

    def _scores(self, weight: Tensor, name: str) -> Tensor:
        """Raises InputError where the function fails, or gives anything but a float of the weight's shape."""
        import torch

        try:
            scores = self.function(weight)
        except Exception as error:  # a function of the user's own may raise anything
            raise InputError(
                f"criterion={self.word} failed on {name} {list(weight.shape)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(scores, torch.Tensor) or scores.shape != weight.shape or not scores.is_floating_point():
            is_tensor = isinstance(scores, torch.Tensor)
            what = f"{scores.dtype} {list(scores.shape)}" if is_tensor else type(scores).__name__
            raise InputError(
                f"criterion={self.word} gave {what} for {name}; it must give a float score for every entry, "
                f"{list(weight.shape)}"
            )
        return scores.detach()
