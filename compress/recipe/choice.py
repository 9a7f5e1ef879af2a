"""What is common to the choice of weights and of nodes: it is made again and again, and never gives anything back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.recipe import schema
from compress.recipe.setting import EVALUATION_BATCH, Setting
from compress.select.histogram import histogram
from compress.select.scores import Scores
from compress.slim.coupling import Coupling

Key = TypeVar("Key")
Group = tuple[str | None, Sequence[Tensor | Scores], Sequence[Tensor]]
"""(tensor or layer, or None for all targets together; scores; what stays of each)."""

HISTOGRAMS = 24
"""Of so many groups at most, the largest, are the scores in the results."""


@dataclass
class Pruned:
    """What the stages so far have taken, so that no later one gives it back.

    dense: the network before all of them, for distillation; a stage copies the network that it gets if it is absent.
    """

    keep: dict[str, Tensor] = field(default_factory=dict)  # parameter path -> bool mask, True = keep
    keep_nodes: dict[Coupling, Tensor] = field(default_factory=dict)  # bool [nodes]
    dense: nn.Module | None = None


class Choice(ABC):
    """A `compress.remove.pruner.Chooser` for one stage, over the parameters `paths`: its own and earlier stages'.

    It is called with the share that is to go so far, on the way to the stage's `goes`.

    It is made before masks are laid on the model, and called while they are.
    """

    paths: Sequence[str]
    adjacent: Sequence[str]
    """Patterns of the parameters on both sides of pruned nodes."""

    def __init__(self, stage: schema.Stage, pruned: Pruned) -> None:
        self._stage, self._pruned = stage, pruned
        self.histograms: list[dict[str, Any]] = []
        """How the scores were spread when first all that goes was chosen; none where they say nothing."""
        self._latest: dict[str, Tensor] = {}

    def __call__(self, sparsity: float, gone: Sequence[Tensor]) -> list[Tensor]:
        self._latest = self._masks(sparsity, dict(zip(self.paths, gone, strict=True)))
        return [self._latest[path] for path in self.paths]

    def settle(self) -> None:
        """The latest choice is final: no later stage gives it back."""
        self._pruned.keep.update(self._latest)

    def compensate(self, sparsity: float) -> None:
        """Before any mask: let the layers that read the chosen nodes make up for them.

        Raises:
            TargetError: a layer that cannot.
        """
        raise InputError("compensate is for nodes; the target is weights")

    @property
    def achieved(self) -> float:
        """What the stage's level asks for, as the latest choice has it."""
        count, total = self.count
        return count / total

    @property
    @abstractmethod
    def count(self) -> tuple[int, int]:
        """(how many weights or nodes go by the latest choice, of how many); earlier stages may have taken more."""

    def _note_scores(self, groups: Iterable[Group], share: float) -> None:
        """Keep histograms of the groups, each of tensors that were ranked together, if this is the whole choice."""
        tells = not isinstance(self._stage.criterion, schema.Random | schema.PrincipalAxes)  # no measurement, or ranks
        if self.histograms or not tells or share < self._stage.goes:
            return
        largest = sorted(groups, key=lambda group: -sum(mask.numel() for mask in group[2]))[:HISTOGRAMS]
        for name, scores, keep in largest:
            if (found := histogram(scores, keep)) is not None:
                self.histograms.append({**({} if name is None else {"of": name}), **found})

    @abstractmethod
    def _masks(self, sparsity: float, gone: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


def scoring_batches(
    setting: Setting, samples: int | str, size: int = EVALUATION_BATCH
) -> Iterator[tuple[Tensor, Tensor]]:
    """(input, target) batches of the first `samples` training images, or of "all"."""
    batches = setting.data.batches("train", size, setting.task, setting.device)()
    return iter(batches) if isinstance(samples, str) else _first(batches, samples)


def _first(batches: Iterable[tuple[Tensor, Tensor]], samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    left = samples
    for inputs, target in batches:
        yield inputs[:left], target[:left]
        left -= len(inputs)
        if left <= 0:
            return


def with_earlier(masks: Mapping[Key, Tensor], earlier: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """The masks, with nothing coming back that an earlier one took."""
    return {name: mask & earlier[name] if name in earlier else mask for name, mask in masks.items()}


def taken_first(scores: Tensor, keep: Tensor | None) -> Tensor:
    """Sparsity is of the original: what is taken already counts, so it goes first."""
    return scores if keep is None else scores.masked_fill(~keep, -torch.inf)


def chance_of(setting: Setting, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(setting.seed + number)
