"""`Selection`: what the selections of weights and of nodes have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from compress.graph.trace import Trace
from compress.results import Histogram
from compress.select.amount import Amount, shares_of
from compress.select.bits import Bits
from compress.select.compensate import COMPENSATION_SAMPLES, compensate
from compress.select.compensation.calls import calls_of
from compress.select.criteria import Criterion
from compress.select.histogram import histogram
from compress.select.members import place_of
from compress.select.pruned import Pruned
from compress.select.scores import Scores
from compress.select.scoring import Scoring, on_data
from compress.shards import mapped, spread, true_in

Group = tuple[str | None, Sequence[Tensor | Scores], Sequence[Tensor]]
"""(tensor or layer, or None for all targets together; scores; masks of what is kept)."""

HISTOGRAMS = 24
"""The most groups whose scores are in the results; the largest ones."""


class Selection(ABC):
    """Chooses what is pruned of the parameters `paths`: its own targets, and everything that earlier pruners pruned.

    Called with the share to prune by now, up to the amount's, and with what is exactly zero already, it gives a mask
    for each path, True = keep. It is made before the model is masked, and called while it is.
    """

    paths: Sequence[str]
    adjacent: Sequence[str]
    """Patterns of the parameters on both sides of pruned nodes."""

    def __init__(self, criterion: Criterion, amount: Amount | None, scoring: Scoring, earlier: Pruned) -> None:
        """amount: None where the masks themselves are given."""
        self.criterion, self._amount, self._scoring, self._earlier = criterion, amount, scoring, earlier
        self.histograms: list[Histogram] = []
        """Histograms of the scores at the first complete selection; none where they say nothing."""
        self._latest = Bits()
        self.error = 0.0
        """Of the outputs after compensation, relative to how much they vary."""
        self._chosen = False  # whether the latest choice stands
        self._traces: dict[Hashable, Trace] = {}

    def __call__(self, share: float, removed: Sequence[Tensor]) -> list[Tensor]:
        if self._chosen:
            return [self._latest[path] for path in self.paths]
        chosen = self._masks(share, dict(zip(self.paths, removed, strict=True)))
        self._note(chosen)
        return [chosen[path] for path in self.paths]

    def choose_now(self) -> None:
        """Make the whole choice ahead of the first call, which gets the same one, whatever the weights are then."""
        shapes = (self._scoring.model.get_parameter(path) for path in self.paths)
        self(self.target_share, [torch.zeros_like(shape, dtype=torch.bool) for shape in shapes])
        self._chosen = True

    def compensate(self, keep: Mapping[str, Tensor] | None = None) -> None:
        """Adjust what is kept so that it makes up for what is pruned; see `compress.select.compensate`.

        Args:
            keep: masks by the names of parameters; by default those of the latest choice.

        Raises:
            InputError: no scoring data, or data that nothing can be fitted on.
            UnsupportedModelError: the network cannot be traced.
        """
        self._compensated(self._latest if keep is None else keep)

    def _compensated(self, keep: Mapping[str, Tensor], branches: Collection[str] = ()) -> None:
        model = self._scoring.model
        with on_data("compensate"):
            calls = calls_of(model, self._scoring.batches("compensate", COMPENSATION_SAMPLES), self._traces)
            self.error = compensate(model, keep, calls, self._traces, branches=branches)

    def state_dict(self) -> dict[str, Any]:
        return {
            "latest": dict(self._latest) or self._nothing(),
            "generator": self._scoring.generator.get_state(),
            # One value, where torch.distributed.checkpoint would take a list to pieces, however many there are.
            "histograms": tuple(self.histograms),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume with what has been chosen, instead of choosing again."""
        self._note(self._placed(state["latest"]))
        self._scoring.generator.set_state(state["generator"])
        self.histograms = list(state["histograms"])

    def add_to(self, pruned: Pruned) -> None:
        """Make the latest choice final: later pruners keep it pruned."""
        pruned.keep.update(self._latest)

    def _note(self, latest: Mapping[str, Tensor]) -> None:
        """These masks are the latest choice."""
        self._latest = Bits(latest)

    def _placed(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loaded masks, with the placement of this network's parameters."""
        places = {path: place_of(self._scoring.model, path) for path in masks}
        return {path: spread(mask, getattr(*places[path])) for path, mask in masks.items()}

    def _nothing(self) -> dict[str, Tensor]:
        """Masks of nothing pruned, into which those of a distributed checkpoint can be read."""
        places = {path: place_of(self._scoring.model, path) for path in self.paths}
        return {path: torch.ones_like(getattr(*place).detach(), dtype=torch.bool) for path, place in places.items()}

    @property
    def model(self) -> nn.Module:
        """The network that is pruned."""
        return self._scoring.model

    @property
    def target_share(self) -> float:
        """The share that is pruned in the end, as `__call__` takes it."""
        return 1.0 if self._amount is None else self._amount.share

    @property
    def measure(self) -> str:
        """What `asked` and `achieved` measure: "sparsity", or the budget's "params" or "macs"."""
        return "sparsity" if self._amount is None else self._amount.measure

    @property
    def asked(self) -> float:
        """The amount; where every layer has its own sparsity, the share of all of them together."""
        if self._amount is None:
            return self.achieved
        if self._amount.layers is None:
            return self._amount.value
        sizes, shares = self.layers, shares_of(self._amount.layers, self.names)
        return sum(shares[name] * size for name, size in sizes.items()) / sum(sizes.values())

    @property
    def achieved(self) -> float:
        """The amount that the latest choice reaches; 0 without a target."""
        count, total = self.count
        return count / total if total else 0.0

    @property
    @abstractmethod
    def names(self) -> Mapping[str, Collection[str]]:
        """All names of each layer of the target, by its main name."""

    @property
    @abstractmethod
    def layers(self) -> Mapping[str, int]:
        """How many weights or nodes each layer of the target has, by its name: that of the parameter, for weights."""

    @property
    @abstractmethod
    def pruned_in(self) -> Mapping[str, int]:
        """How many weights or nodes of each layer are pruned by the latest choice, earlier pruners' included."""

    @property
    def count(self) -> tuple[int, int]:
        """(how many weights or nodes are pruned by the latest choice, of how many)."""
        return sum(self.pruned_in.values()), sum(self.layers.values())

    @property
    @abstractmethod
    def expected(self) -> int | None:
        """How many are pruned by the amount alone; None where widths, floors or a budget also decide."""

    @abstractmethod
    def ranked(self) -> Callable[[Mapping[str, float]], dict[str, Tensor]]:
        """From the sparsity of each layer, by name, to masks, True = keep, by scores that are computed once.

        The gradients' part in a score is computed now, the weights' own part when the result is called. `count` is that
        of the latest call.
        """

    def _require_data(self) -> None:
        """Raises InputError at once, instead of at the first choice, where data or a loss is missing."""
        self._scoring.require(self.criterion, data=self.criterion.needs_data, loss=self.criterion.needs_loss)

    def _looking(self) -> AbstractContextManager[None]:
        """Where the criterion is computed."""
        return on_data(self.criterion) if self.criterion.needs_data else nullcontext()

    def left_alive(self, model: nn.Module) -> int:
        """How many entries were chosen and are not exactly zero in `model`, whose masks are folded."""
        parameters = {path: model.get_parameter(path).detach() for path in self._latest}
        return sum(true_in([mapped(_alive, parameters[path], mask) for path, mask in self._latest.items()]))

    def _note_scores(self, groups: Iterable[Group], share: float) -> None:
        """Keep histograms of the groups, each of tensors that were ranked together, if this is the whole choice."""
        if self.histograms or not self.criterion.measures or share < self.target_share:
            return
        largest = sorted(groups, key=lambda group: -sum(mask.numel() for mask in group[2]))[:HISTOGRAMS]
        for name, scores, keep in largest:
            if (found := histogram(scores, keep)) is not None:
                self.histograms.append(found if name is None else {"of": name, **found})

    @abstractmethod
    def _masks(self, share: float, removed: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


def _alive(weight: Tensor, keep: Tensor) -> Tensor:
    return (weight != 0) & ~keep


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
