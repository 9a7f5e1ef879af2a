"""The shape of a criterion: a frozen dataclass of its options, with scores for weights, nodes or branches.

Nothing here and in the members imports torch before something is scored: a recipe is checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compress.errors import TargetError
from compress.options import check_options, option

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.branches import Branch
    from compress.graph.coupling import Coupling, Couplings
    from compress.select.pruned import Pruned
    from compress.select.scores import Scores
    from compress.select.scoring import Scoring
    from compress.select.targets import Target

    NodeScores = dict[Coupling, Tensor]
    BranchCost = Callable[[Sequence[Branch]], float]

Samples = int | Literal["all"]


def samples_option(default: int) -> Any:
    return option("score on the first N training samples, or on all", default, ge=1)


class Criterion:
    """Scores weights, nodes or branches: the lowest are pruned first.

    Each criterion is a frozen dataclass in a separate file, listed in `compress.select.criteria.CRITERIA`. The first
    sentence of its docstring says what is pruned first; the reference of recipes shows it.
    """

    words: ClassVar[tuple[str, ...]] = ()
    """Its names in recipes."""

    needs_data: ClassVar[bool] = False
    """Whether it looks at batches."""

    needs_loss: ClassVar[bool] = False
    """Whether it looks at the loss."""

    per_entry: ClassVar[bool] = False
    """Whether a node's score grows with how many entries it has, so that widths of different layers do not compare."""

    adds_up: ClassVar[bool] = False
    """Whether a node's score is an error that adds up, so that nodes compare by it and what they cost."""

    watches_layers: ClassVar[bool] = False
    """Whether it looks at what layers are or pass on, which the operators of a program do not show."""

    measures: ClassVar[bool] = True
    """Whether its scores say something of the network, for a histogram."""

    def __post_init__(self) -> None:
        check_options(self)

    def score_weights(self, targets: Sequence[Target], scoring: Scoring) -> Sequence[Scores]:
        """A score for every entry of the targets with their current values, larger = keep."""
        raise TargetError(
            f"the criterion {self.word} ranks nodes, and the target is weights; use magnitude, or nodes()"
        )

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        """A score for every node, [nodes] of each coupling, larger = keep."""
        raise TargetError(
            f"the criterion {self.word} ranks weights, and the target is nodes; use norms, or target weights"
        )

    def branch_cost(self, scoring: Scoring) -> BranchCost:
        """(removed branches) -> what the network is worth less without them, from the weights as they are now."""
        raise TargetError(f"the criterion {self.word} does not rank branches; use ablation, or target nodes")

    def restructure(
        self,
        coupled: Sequence[Coupling],
        scoring: Scoring,
        known: Couplings,
        earlier: Pruned,
        *,
        restore: bool = False,
    ) -> list[str] | None:
        """Change the network before the selection.

        Args:
            known: the couplings of the network, of which `coupled` are the target.
            earlier: what earlier pruners pruned, which remains pruned.
            restore: change only the structure, because weights will be loaded into it.

        Returns:
            The layers whose nodes are the new target; None if the network does not change.
        """
        return None

    @property
    def word(self) -> str:
        """The name that recipes have for it."""
        fitting = (
            word
            for word in self.words
            if all(getattr(self, name) == value for name, value in self.decided_by(word).items())
        )
        return next(fitting, type(self).__name__)

    @classmethod
    def decided_by(cls, word: str) -> Mapping[str, Any]:
        """The options that the name `word` decides, where there are several names."""
        return {}

    @classmethod
    def ranks_weights(cls) -> bool:
        return cls.score_weights is not Criterion.score_weights

    @classmethod
    def ranks_branches(cls) -> bool:
        return cls.branch_cost is not Criterion.branch_cost

    @classmethod
    def ranks_nodes(cls) -> bool:
        return cls.score_nodes is not Criterion.score_nodes
