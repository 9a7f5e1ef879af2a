"""What is common to the choice of weights and of nodes: it is made again and again, and never gives anything back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compress.errors import InputError, TargetError
from compress.graph.coupling import Coupling, Member
from compress.recipe import schema
from compress.results import Histogram
from compress.run.setting import EVALUATION_BATCH, Setting
from compress.select.histogram import histogram
from compress.select.scores import Scores

Key = TypeVar("Key")
Group = tuple[str | None, Sequence[Tensor | Scores], Sequence[Tensor]]
"""(tensor or layer, or None for all targets together; scores; what stays of each)."""

HISTOGRAMS = 24
"""Of so many groups at most, the largest, are the scores in the results."""


@dataclass
class Pruned:
    """What the stages so far have taken, so that no later one gives it back.

    dense: gives the network before all of them, for distillation; a stage copies the network that it gets if it is
        absent.
    """

    keep: dict[str, Tensor] = field(default_factory=dict)  # parameter path -> bool mask, True = keep
    keep_nodes: dict[Coupling, Tensor] = field(default_factory=dict)  # bool [nodes]
    dense: Callable[[], nn.Module] | None = None

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

    def __init__(self, stage: schema.Stage, pruned: Pruned, chance: torch.Generator) -> None:
        self._stage, self._pruned, self._chance = stage, pruned, chance
        self.histograms: list[Histogram] = []
        """How the scores were spread when first all that goes was chosen; none where they say nothing."""
        self._latest: dict[str, Tensor] = {}

    def __call__(self, sparsity: float, gone: Sequence[Tensor]) -> list[Tensor]:
        self._latest = self._masks(sparsity, dict(zip(self.paths, gone, strict=True)))
        return [self._latest[path] for path in self.paths]

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self._latest, "chance": self._chance.get_state(), "histograms": self.histograms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what has been chosen, instead of choosing anew."""
        self._latest = dict(state["latest"])
        self._chance.set_state(state["chance"])
        self.histograms = list(state["histograms"])

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
    def asked(self) -> float:
        """The stage's level; where every layer has its own sparsity, the share of all of them together."""
        if self._stage.layers is None:
            return self._stage.level[1]
        sizes, shares = self.layers, shares_of(self._stage.layers, self.names)
        return sum(shares[name] * size for name, size in sizes.items()) / sum(sizes.values())

    @property
    def achieved(self) -> float:
        """What the stage's level asks for, as the latest choice has it."""
        count, total = self.count
        return count / total

    @property
    @abstractmethod
    def names(self) -> Mapping[str, Collection[str]]:
        """All names of each layer of the target, by the one that it goes by."""

    @property
    @abstractmethod
    def layers(self) -> Mapping[str, int]:
        """How many weights or nodes each layer of the target has, by its name: that of the parameter, for weights."""

    @abstractmethod
    def ranked(self) -> Callable[[Mapping[str, float]], dict[str, Tensor]]:
        """From the sparsity of each layer, by name, to masks, True = keep, by scores that are computed once.

        What the gradients say is of now; the weights' own part in a score is of when the result is called. `count` is
        of the latest call. Where the stage compensates, a call does that too.
        """

    @property
    @abstractmethod
    def count(self) -> tuple[int, int]:
        """(how many weights or nodes go by the latest choice, of how many); earlier stages may have taken more."""

    @property
    @abstractmethod
    def expected(self) -> int | None:
        """How many go by the stage's level alone; None where widths, floors or a budget have a say in it."""

    def left_alive(self, model: nn.Module) -> int:
        """How many entries were chosen to go and are not exactly zero in `model`, which has no masks any more."""
        return sum(int(model.get_parameter(path)[~mask].count_nonzero()) for path, mask in self._latest.items())

    def _note_scores(self, groups: Iterable[Group], share: float) -> None:
        """Keep histograms of the groups, each of tensors that were ranked together, if this is the whole choice."""
        tells = not isinstance(self._stage.criterion, schema.Random | schema.PrincipalAxes)  # no measurement, or ranks
        if self.histograms or not tells or share < self._stage.goes:
            return
        largest = sorted(groups, key=lambda group: -sum(mask.numel() for mask in group[2]))[:HISTOGRAMS]
        for name, scores, keep in largest:
            if (found := histogram(scores, keep)) is not None:
                if name is not None:
                    found["of"] = name
                self.histograms.append(found)

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


def shares_of(
    patterns: Mapping[str, float], layers: Mapping[str, Collection[str]], part: float = 1.0
) -> dict[str, float]:
    """The sparsity of each layer: what the first pattern says that matches one of its names.

    Args:
        layers: all names of each, by the one that it goes by.
        part: how far on the way to that, in [0, 1].

    Raises:
        TargetError: a pattern matches nothing, or no pattern matches a layer.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for names in layers.values() for name in names):
            raise TargetError(
                f"the pattern {pattern!r} of `layers` matches none of the target's layers, {', '.join(layers)}"
            )
    found: dict[str, float] = {}
    for layer, names in layers.items():
        share = next((patterns[p] for p in patterns if any(fnmatchcase(name, p) for name in names)), None)
        if share is None:
            raise TargetError(f"no pattern of `layers` matches {layer}; add it, or '*': 0 at the end for all others")
        found[layer] = part * share
    return found


def with_earlier(masks: Mapping[Key, Tensor], earlier: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """The masks, with nothing coming back that an earlier one took."""
    return {name: mask & earlier[name] if name in earlier else mask for name, mask in masks.items()}


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
