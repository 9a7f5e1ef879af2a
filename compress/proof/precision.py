"""`InFloat64`: a network that computes in float64, for cases that its own dtype cannot decide."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from compress.graph.eager_mode import EagerMode
from compress.graph.twin import copied, twin
from compress.inputs import Inputs

Network = TypeVar("Network", bound=nn.Module)

_EXACT = {
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64),
    **dict.fromkeys((torch.complex64, torch.complex32), torch.complex128),
}

_MADE = {torch.ops.aten.lift_fresh.default}
"""The first operator that is seen of a tensor that `torch.tensor` creates from numbers."""

_COUNTING = {torch.ops.aten.arange, torch.ops.aten.linspace, torch.ops.aten.logspace}

COARSE = {torch.float16, torch.bfloat16}
"""In these dtypes, two networks that compute the same differ too much for a tolerance."""


def dtypes_of(model: nn.Module, inputs: Inputs) -> set[torch.dtype]:
    """The dtypes of all floating-point numbers that the network uses."""
    tensors = [*model.parameters(), *model.buffers(), *inputs.tensors]
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex()}


class InFloat64:
    """A copy whose parameters, inputs and results are in float64, whatever dtypes its code, or a graph, names.

    Constants that its code computes, such as the anchors of a detector, are rounded as the network rounds them, because
    a graph contains them as numbers.

    The constructor and calls may raise any error: the network cannot be copied, or an operator has no float64.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = own_dtype(model)
        self.module = in_float64(model)

    def __call__(self, inputs: Inputs) -> object:
        return call_in_float64(self.module, inputs, self._own)


def own_dtype(model: nn.Module) -> torch.dtype:
    """Of the parameters, if they are in floating point."""
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.get_default_dtype())


def in_float64(model: Network) -> Network:
    tensors = {*model.parameters(), *model.buffers()}
    if any(type(one) not in (nn.Parameter, Tensor) for one in tensors):
        return cast(Network, copied(model)._apply(_exact))  # type: ignore[no-untyped-call]
    return twin(model, {one: _copy(one) for one in tensors})  # without a copy in the own dtype first


def _copy(tensor: Tensor) -> Tensor:
    exact = tensor.detach().to(_EXACT.get(tensor.dtype, tensor.dtype), copy=True)
    return nn.Parameter(exact, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else exact


def call_in_float64(model: nn.Module, inputs: Inputs, own: torch.dtype) -> object:
    """own: the dtype in which the network computes its constants."""
    default = torch.float64 if own is torch.float64 else torch.get_default_dtype()
    with _AsFloat64(own, default), _Alike(), _default_dtype(torch.float64):
        return inputs.mapped(_exact).call(model)


class _AsFloat64(EagerMode):
    """Operators get float64 instead of each smaller tensor, and of each requested dtype, unless all their arguments are
    constants.

    own, default: the dtype of the network, and torch's default where it runs.
    """

    def __init__(self, own: torch.dtype, default: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own, self._default = own, default
        self._constants: dict[int, Tensor] = {}  # by identity, which no other tensor gets while they are here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if self._is_constant(func, leaves):
            return self._constant(func, args, kwargs)
        if func._schema.is_mutable and id(args[0]) in self._constants and args[0].dtype in _EXACT:
            return func(*tree_map(lambda value: _rounded(value, args[0].dtype), args), **kwargs)
        if any(map(_is_coarser, leaves)):
            args, kwargs = tree_map(_exact, (args, kwargs))
        result = func(*args, **kwargs)
        return _exact(result) if isinstance(result, Tensor) else tree_map(_exact, result)

    def _is_constant(self, func: Any, leaves: Sequence[Any]) -> bool:
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if func in _MADE or (func.overloadpacket in _COUNTING and not tensors):
            return True
        return bool(tensors) and all(id(one) in self._constants for one in tensors) and _is_certain(func)

    def _constant(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In the network's own precision."""
        args, kwargs = tree_map(lambda value: self._own if value is torch.float64 else value, (args, kwargs))
        with _default_dtype(self._default):
            result = func(*args, **kwargs)
        if func in _MADE:
            result = _rounded(result, self._default)
        self._constants |= {id(leaf): leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        return result


class _Alike(TorchFunctionMode):
    """Functions with a float64 argument also get their constants in float64.

    Some refuse mixed dtypes before they call an operator: convolutions, scaled dot-product attention.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # In place (add_, __setitem__) a constant is written to, which must be that tensor and not a copy.
        if not getattr(func, "__name__", "_").endswith("_") and "out" not in kwargs:
            dtypes = {leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            if torch.float64 in dtypes and not dtypes.isdisjoint(_EXACT):
                with _disable_current_modes():  # for which a widened constant would be a constant, and not be widened
                    args, kwargs = tree_map_only(Tensor, widened, (args, kwargs))
        return func(*args, **kwargs)


def _is_certain(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded not in func.tags


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.dtype is torch.float64 else value


def widened(tensor: Tensor) -> Tensor:
    return tensor.to(_EXACT[tensor.dtype]) if tensor.dtype in _EXACT else tensor


def _is_coarser(value: Any) -> bool:
    """Whether it is a tensor, or names a dtype, that float64 replaces."""
    dtype = value.dtype if isinstance(value, Tensor) else value
    return isinstance(dtype, torch.dtype) and dtype in _EXACT


def _exact(value: Any) -> Any:
    if isinstance(value, Tensor):
        return widened(value)
    return _EXACT.get(value, value) if isinstance(value, torch.dtype) else value


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
