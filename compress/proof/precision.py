"""`InFloat64`: a network as it computes with more precise numbers, where its own cannot decide."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from compress.graph.twin import copied
from compress.inputs import Inputs

Network = TypeVar("Network", bound=nn.Module)

_EXACT = {
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64),
    **dict.fromkeys((torch.complex64, torch.complex32), torch.complex128),
}

COARSE = {torch.float16, torch.bfloat16}
"""Two networks that compute the same differ too much in them for a tolerance to tell."""


def dtypes_of(model: nn.Module, inputs: Inputs) -> set[torch.dtype]:
    """Of everything in floating point that it computes with."""
    tensors = [*model.parameters(), *model.buffers(), *inputs.tensors]
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex()}


class InFloat64:
    """A copy whose parameters, inputs and results are in float64, whatever dtypes its code, or a graph, names.

    Making one and calling it may raise any error: the network cannot be copied, or an operator has no float64.
    """

    def __init__(self, model: nn.Module) -> None:
        self.module = in_float64(model)

    def __call__(self, inputs: Inputs) -> object:
        return call_in_float64(self.module, inputs)


def in_float64(model: Network) -> Network:
    return cast(Network, copied(model)._apply(_exact))  # type: ignore[no-untyped-call]


def call_in_float64(model: nn.Module, inputs: Inputs) -> object:
    with _default_dtype(torch.float64), _AsFloat64():  # type: ignore[no-untyped-call]
        return inputs.mapped(_exact).call(model)


class _AsFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operators get float64 for each smaller tensor, and for each dtype that they are asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_exact, (args, kwargs or {}))
        return tree_map(_exact, func(*args, **kwargs))


def _exact(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(_EXACT[value.dtype]) if value.dtype in _EXACT else value
    return _EXACT.get(value, value) if isinstance(value, torch.dtype) else value


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
