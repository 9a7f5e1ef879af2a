"""What is common to the choice of weights and of nodes: it is made again and again, and never gives anything back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.recipe.setting import EVALUATION_BATCH, Setting
from compress.slim.coupling import Coupling, Member

Key = TypeVar("Key")


@dataclass
class Pruned:
    """What the stages so far have taken, so that no later one gives it back.

    dense: the network before all of them, for distillation; a stage copies the network that it gets if it is absent.
    """

    keep: dict[str, Tensor] = field(default_factory=dict)  # parameter path -> bool mask, True = keep
    keep_nodes: dict[Coupling, Tensor] = field(default_factory=dict)  # bool [nodes]
    dense: nn.Module | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"keep": self.keep, "keep_nodes": packed(self.keep_nodes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.keep, self.keep_nodes = dict(state["keep"]), unpacked(state["keep_nodes"])


class Choice(ABC):
    """A `compress.remove.pruner.Chooser` for one stage, over the parameters `paths`: its own and earlier stages'.

    It is called with the share that is to go so far, on the way to the stage's `goes`.

    It is made before masks are laid on the model, and called while they are.
    """

    paths: Sequence[str]
    adjacent: Sequence[str]
    """Patterns of the parameters on both sides of pruned nodes."""

    def __init__(self, pruned: Pruned, chance: torch.Generator) -> None:
        self._pruned, self._chance = pruned, chance
        self._latest: dict[str, Tensor] = {}

    def __call__(self, sparsity: float, gone: Sequence[Tensor]) -> list[Tensor]:
        self._latest = self._masks(sparsity, dict(zip(self.paths, gone, strict=True)))
        return [self._latest[path] for path in self.paths]

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self._latest, "chance": self._chance.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what has been chosen, instead of choosing anew."""
        self._latest = dict(state["latest"])
        self._chance.set_state(state["chance"])

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


def packed(keep: Mapping[Coupling, Tensor]) -> list[Any]:
    """The masks of couplings as plain values and tensors."""
    return [
        (coupling.name, coupling.size, coupling.summed, [astuple(member) for member in coupling.members], mask)
        for coupling, mask in keep.items()
    ]


def unpacked(saved: Iterable[Any]) -> dict[Coupling, Tensor]:
    """Couplings are equal by name, size and members: each of these finds its equal in the network."""
    return {
        Coupling(name, size, tuple(Member(*member) for member in members), summed): mask
        for name, size, summed, members, mask in saved
    }


def chance_of(setting: Setting, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(setting.seed + number)
