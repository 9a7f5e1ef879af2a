"""Runs of a cut network with some integers changed, compared with the network layer by layer, to find which fit."""

from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.graph.untouched import untouched
from compress.inputs import Inputs
from compress.proof.precision import call_in_float64, in_float64, own_dtype

_CLOSE = 1e-5
"""Relative tolerance of a layer's output in a trial, or 20 times the precision of its dtype; the proof is stricter."""

_CLOSE_IN_FLOAT64 = 1e-6
"""Folding and rescaling round to the dtype of the weights, so differences are larger than float64's precision."""

Kept = Mapping[tuple[int, int], Sequence[Tensor]]
"""The positions that may remain of a dimension, by its sizes before and after the cut."""


@dataclass
class Progress:
    """How far into its layers the cut network computes the same as the network.

    agreeing: the number of module outputs that agreed before one differed or could not be computed.
    entered: the modules that had begun by then; within: those of them that had not ended, the innermost last.
    """

    agreeing: int = 0
    entered: set[str] = field(default_factory=set)
    within: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def reached(self) -> tuple[bool, int]:
        return self.complete, self.agreeing


class _DiffersError(Exception):
    pass


class Trials:
    """`run` does not change either network.

    Args:
        small: the cut network, whose integers are changed for each run.
        kept: positions by which outputs of different sizes are compared; those of sizes that are missing are not.
        other: modules within which outputs may differ, though not their own.
        exact: whether to compute in float64, where smaller differences show. Any error may be raised then: a network
            need not have it.
    """

    def __init__(
        self, model: nn.Module, small: nn.Module, given: Inputs, kept: Kept, other: Set[str], exact: bool
    ) -> None:
        self.small, self._own = in_float64(small) if exact else small, own_dtype(model)
        self._given, self._kept, self._exact = given, kept, exact
        self._other = [f"{path}." if path else "" for path in other]
        self._expected: list[tuple[str, list[Tensor]]] = []
        with untouched(in_float64(model) if exact else model) as network, ExitStack() as stack:
            for name, module in network.named_modules():
                hook = module.register_forward_hook(
                    lambda _module, _inputs, output, name=name: self._expected.append((name, _copies(output)))
                )
                stack.callback(hook.remove)
            self._call(network)

    def run(self) -> Progress:
        progress, finished = Progress(), 0

        def enter(name: str) -> None:
            progress.entered.add(name)
            progress.within.append(name)

        def leave(name: str, output: object) -> None:
            nonlocal finished
            if finished >= len(self._expected) or self._expected[finished][0] != name:
                raise _DiffersError
            if not name or not any(name.startswith(path) for path in self._other):
                progress.agreeing += self._agree(self._expected[finished][1], _tensors(output))
            progress.within.pop()
            finished += 1

        try:
            with untouched(self.small) as network:
                for name, module in network.named_modules():
                    module.register_forward_pre_hook(lambda _module, _inputs, name=name: enter(name))
                    module.register_forward_hook(lambda _module, _inputs, output, name=name: leave(name, output))
                self._call(network)
            progress.complete = finished == len(self._expected)
        except Exception:  # a size that does not fit may fail anywhere in the network's code
            progress.complete = False
        return progress

    def _call(self, network: nn.Module) -> object:
        given = self._given.mapped(Tensor.clone)
        return call_in_float64(network, given, self._own) if self._exact else given.call(network)

    def _agree(self, expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
        """Whether a module's output is the remaining part of the network's; False if that is unknown.

        Raises:
            _DiffersError: it differs.
        """
        if len(expected) != len(found):
            raise _DiffersError
        agreeing = [self._agrees(one, other) for one, other in zip(expected, found, strict=True)]
        return all(agreeing)

    def _agrees(self, one: Tensor, other: Tensor) -> bool:
        sizes = list(zip(one.shape, other.shape, strict=False))
        if one.ndim != other.ndim or any(size < now for size, now in sizes):
            raise _DiffersError
        choices: list[Sequence[Any]] = [
            [slice(None)] if size == now else self._kept.get((size, now), ()) for size, now in sizes
        ]
        if not all(choices):
            return False
        if not any(self._close(_selected(one, choice), other) for choice in product(*choices)):
            raise _DiffersError
        return True

    def _close(self, one: Tensor, other: Tensor) -> bool:
        if not one.is_floating_point() or one.dtype != other.dtype:
            return torch.equal(one, other)
        close = _CLOSE_IN_FLOAT64 if self._exact else max(_CLOSE, 20 * torch.finfo(one.dtype).eps)
        finite = one[one.isfinite()].abs()
        scale = float(finite.max()) if len(finite) else 0.0
        return torch.allclose(one, other, rtol=close, atol=close * scale, equal_nan=True)


def _selected(tensor: Tensor, choice: Sequence[Any]) -> Tensor:
    for dim, positions in enumerate(choice):
        tensor = tensor if isinstance(positions, slice) else tensor.index_select(dim, positions.to(tensor.device))
    return tensor


def _tensors(output: object) -> list[Tensor]:
    return [leaf.detach() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _copies(output: object) -> list[Tensor]:
    """Later layers may write into them."""
    return [tensor.clone() for tensor in _tensors(output)]
