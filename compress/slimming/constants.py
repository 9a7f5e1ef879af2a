"""`fold_constants` folds constant nodes, whose row is zero, into the next bias."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from compress.graph.coupling import Couplings
from compress.graph.flow import arguments_of
from compress.graph.rules import rule_of
from compress.graph.shapes import elementwise
from compress.slimming.dead import any_along

_SAME = {
    *("dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias", "mean"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
}


@dataclass(frozen=True)
class _Constants:
    """The nodes along dimension `axis` of a value that are the same for all inputs and positions, with their values."""

    axis: int
    values: Tensor
    known: Tensor


@torch.no_grad()
def fold_constants(known: Couplings, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors`, with the columns that read constant nodes moved into their layer's bias where that is exact.

    It is not exact if a convolution pads its input with zeros and the constant is not zero. It is impossible if the
    reading layer has no bias, or shares its tensors with another.
    """
    folding = _Folding(known, tensors)
    for node in known.trace.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            found = folding.visit(node)
            if found is not None and found.known.any():
                folding.constants[node] = found
    return folding.tensors


class _Folding:
    def __init__(self, known: Couplings, tensors: Mapping[str, Tensor]) -> None:
        self.constants: dict[fx.Node, _Constants] = {}
        self.tensors = dict(tensors)
        self._names: dict[fx.Node, str] = {}
        self._own: set[fx.Node] = set()
        for node in known.trace.graph.nodes:
            if node.op == "get_attr" and node.target in known.names:
                self._names[node] = str(node.target)
                if len(node.users) == 1 and len(known.names[str(node.target)]) == 1:
                    self._own.add(node)

    def visit(self, node: fx.Node) -> _Constants | None:
        name, arguments = _name(node), arguments_of(node)
        if name in ("linear", "conv1d", "conv2d", "conv3d"):
            return self._layer(node, arguments)
        if name == "batch_norm":
            return self._normalized(arguments)
        given = [self.constants.get(source) for source in node.all_input_nodes]
        if not given or any(found is None for found in given) or not isinstance(node.meta["val"], Tensor):
            return None
        first = given[0]
        assert first is not None
        if name in _SAME and (name != "mean" or first.axis not in _axes(arguments["dim"], node)):
            return first if node.meta["val"].ndim == node.all_input_nodes[0].meta["val"].ndim else None
        if rule_of(node) is elementwise:
            return self._elementwise(node)
        if name in ("flatten", "view", "reshape") and first.axis == 1 and node.meta["val"].ndim == 2:
            return _flat(first, node.meta["val"].shape[1])
        return None

    def _tensor(self, node: fx.Node | None) -> Tensor | None:
        return None if node is None else self.tensors.get(self._names.get(node, ""))

    def _layer(self, node: fx.Node, arguments: dict[str, Any]) -> _Constants | None:
        weight, rank = self._tensor(arguments["weight"]), node.meta["val"].ndim
        if weight is None or (arguments["bias"] is not None and arguments["bias"] not in self._names):
            return None
        axis = rank - 1 if weight.ndim == 2 else rank - weight.ndim + 1
        given = self.constants.get(arguments["input"])
        if given is not None and given.axis == axis and arguments.get("groups", 1) == 1:
            weight = self._fold(arguments, given, weight)
        bias = self._tensor(arguments["bias"])
        values = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        return _Constants(axis, values, ~any_along(weight != 0, 0))

    def _fold(self, arguments: dict[str, Any], given: _Constants, weight: Tensor) -> Tensor:
        """Set the columns that read constants to zero, and add to the bias what they contributed."""
        padded = any(arguments.get("padding", [0])) if arguments.get("padding") != "valid" else False
        bias = self._tensor(arguments["bias"]) if arguments["bias"] in self._own else None
        can = given.known if bias is not None and not padded else given.known & (given.values == 0)
        if arguments["weight"] not in self._own or not can.any():
            return weight
        weight = weight.detach().clone()
        if bias is not None:
            added = weight[:, can].flatten(2).sum(2) if weight.ndim > 2 else weight[:, can]
            self.tensors[self._names[arguments["bias"]]] = bias + added @ given.values[can]
        weight[:, can] = 0
        self.tensors[self._names[arguments["weight"]]] = weight
        return weight

    def _normalized(self, arguments: dict[str, Any]) -> _Constants | None:
        names = ("weight", "bias", "running_mean", "running_var")
        scale, shift, mean, variance = (self._tensor(arguments[name]) for name in names)
        if scale is None or shift is None or mean is None or variance is None or arguments["training"]:
            return None
        given = self.constants.get(arguments["input"])
        if given is None or given.axis != 1:
            return _Constants(1, shift.detach(), scale == 0)
        values = (given.values - mean) / (variance + arguments["eps"]).sqrt() * scale + shift
        return _Constants(1, torch.where(scale == 0, shift, values).detach(), given.known | (scale == 0))

    def _elementwise(self, node: fx.Node) -> _Constants | None:
        given = {source: self.constants[source] for source in node.all_input_nodes}
        shapes = {tuple(value.meta["val"].shape) for value in (node, *given)}
        if len({found.axis for found in given.values()}) > 1 or len(shapes) > 1:
            return None
        # A copy, since an in-place operator writes into what it is given.
        arguments = fx.map_arg(node.args, lambda source: given[source].values.clone())
        named = fx.map_arg(node.kwargs, lambda source: given[source].values.clone())
        known = torch.stack([found.known for found in given.values()]).all(0)
        return _Constants(next(iter(given.values())).axis, node.target(*arguments, **named), known)  # type: ignore


def _name(node: fx.Node) -> str:
    return str(node.target._schema.name.removeprefix("aten::").removesuffix("_"))  # type: ignore[union-attr]


def _axes(dims: int | list[int] | None, node: fx.Node) -> list[int]:
    rank = node.all_input_nodes[0].meta["val"].ndim
    if dims is None:
        return list(range(rank))
    return [dim % rank for dim in ([dims] if isinstance(dims, int) else dims)]


def _flat(given: _Constants, size: int) -> _Constants | None:
    if size % len(given.known):
        return None
    times = size // len(given.known)
    return _Constants(1, given.values.repeat_interleave(times), given.known.repeat_interleave(times))
