"""What a network loses without some of its residual branches: the rise of the loss, or the change of its outputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.batches import Pair, has_own_loss, pairs
from compress.errors import InputError
from compress.evaluation_mode import evaluation_mode
from compress.graph.branches import Branch
from compress.select.members import place_of
from compress.select.scoring import Scoring
from compress.tasks import Loss, in_float64


@dataclass(frozen=True)
class Ablated:
    """(removed branches) -> the mean loss without them; without a loss, the squared change of the outputs.

    The change is relative to how much the outputs vary.
    """

    model: nn.Module
    batches: Sequence[Pair]
    loss: Loss | None
    outputs: Sequence[Sequence[Tensor]]

    @classmethod
    def of(cls, scoring: Scoring, asker: object, samples: int | Literal["all"]) -> "Ablated":
        """
        Raises:
            InputError: no scoring data.
        """
        model = scoring.model
        batches = list(pairs(scoring.batches(asker, samples), model))
        if not batches:
            raise InputError("no scoring data for the loss without a branch: `batches` gave none")
        has_loss = (scoring.function is not None or has_own_loss(model)) and batches[0][1] is not None
        if has_loss:
            return cls(model, batches, scoring.loss(asker), ())
        with evaluation_mode(model):
            return cls(model, batches, None, [_tensors(given.call(model)) for given, _ in batches])

    def __call__(self, removed: Sequence[Branch]) -> float:
        with evaluation_mode(self.model), _zeroed(self.model, removed):
            if self.loss is None:
                return self._change()
            found = [
                float(self.loss(in_float64(given.call(self.model)), target)) * given.rows
                for given, target in self.batches
            ]
        return sum(found) / sum(given.rows for given, _ in self.batches)

    def _change(self) -> float:
        changed, count = 0.0, 0
        for (given, _), dense in zip(self.batches, self.outputs, strict=True):
            for before, now in zip(dense, _tensors(given.call(self.model)), strict=True):
                scale = float(before.double().var(correction=0)) or 1.0
                changed += given.rows * float((now.double() - before.double()).square().mean()) / scale
            count += given.rows * len(dense)
        return changed / max(1, count)


def _tensors(output: object) -> list[Tensor]:
    leaves = tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()]


@contextmanager
def _zeroed(model: nn.Module, removed: Sequence[Branch]) -> Iterator[None]:
    """The network with zeros at the ends of some branches."""
    places = [place_of(model, name) for branch in removed for name in branch.ends]
    tensors = [getattr(module, name).data for module, name in places]
    before = [tensor.clone() for tensor in tensors]
    try:
        with torch.no_grad():
            for tensor in tensors:
                tensor.zero_()
        yield
    finally:
        with torch.no_grad():
            for tensor, old in zip(tensors, before, strict=True):
                tensor.copy_(old)
