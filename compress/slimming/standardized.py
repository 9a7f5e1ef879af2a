"""Layers that compute their effective weight from a parameter, as weight standardization does, after a cut.

Their code takes the mean and the variance over all weights of a row. Those of dead inputs are zero and count, so that
without them the row would get other numbers. The layer continues to compute the row at its old width, with zeros in
place of what was cut, and the operator that applies the weight gets the remaining part. For any such code, the
effective weight does not change, and it trains like that of the masked layer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.graph.flow import owner_of

_APPLYING = {
    *(F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
}
"""Functions of an input and a weight."""


def count_weights(model: nn.Module, name: str, dim: int, before: int) -> None:
    """Let the layer of the parameter `name` compute as if dimension `dim` still had the size `before`."""
    path = owner_of(name)
    layer: Any = model.get_submodule(path)
    if not isinstance(layer, _Counting):
        layer.__class__ = _counting(type(layer))
        layer.counted = {}
    layer.counted.setdefault(name.removeprefix(f"{path}."), {}).setdefault(dim, before)


class _Counting(nn.Module):
    """Mixed into the class of a layer. counted: the sizes before the cut, by parameter and dimension."""

    counted: dict[str, dict[int, int]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        held: list[tuple[nn.Module, str]] = []
        left: dict[torch.Size, torch.Size] = {}
        try:
            for name, sizes in self.counted.items():
                path, _, leaf = name.rpartition(".")
                holder = self.get_submodule(path)
                parameter = holder.get_parameter(leaf)
                wide = _widened(parameter, sizes)
                left[wide.shape] = parameter.shape
                vars(holder)[leaf] = wide  # found before the parameter of this name
                held.append((holder, leaf))
            with _Narrowed(left):
                return super().forward(*args, **kwargs)
        finally:
            for holder, leaf in held:
                del vars(holder)[leaf]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, counted={self.counted}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self).__mro__[2],), vars(self)


class _Narrowed(TorchFunctionMode):
    """Gives the operator that applies a weight the part of it that is left.

    Args:
        left: the shapes of that part, by the whole shape.
    """

    def __init__(self, left: Mapping[torch.Size, torch.Size]) -> None:
        super().__init__()
        self._left = left

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function in _APPLYING:
            if "weight" in kwargs:
                kwargs["weight"] = self._part(kwargs["weight"])
            else:
                args = (args[0], self._part(args[1]), *args[2:])
        return function(*args, **kwargs)

    def _part(self, weight: Tensor) -> Tensor:
        for dim, size in enumerate(self._left.get(weight.shape, ())):
            weight = weight.narrow(dim, 0, size)
        return weight


def _widened(parameter: Tensor, sizes: Mapping[int, int]) -> Tensor:
    amounts = [0, 0] * parameter.ndim
    for dim, size in sizes.items():
        amounts[2 * (parameter.ndim - dim) - 1] = size - parameter.shape[dim]
    return F.pad(parameter, amounts)


def _counting(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_Counting, kind), {"__module__": kind.__module__})


def _remade(kind: type[nn.Module]) -> nn.Module:
    return object.__new__(_counting(kind))
