"""Computed weights: find the parameter behind each, so that it is known what reads and writes nodes."""

from typing import Any

from torch import Tensor, fx

from compress.graph.dimensions import joint, leaves, whole
from compress.graph.flow import Flow, Value
from compress.graph.names import name_of
from compress.graph.reductions import reduction, summed

# Operators that scale their first argument, whatever the others are; `mul` scales both.
_SCALING = {"mul", "div", "neg", "clone", "detach", "alias", "contiguous", "to", "_to_copy", "type_as", "dropout"}

# The result has an entry for each of the first argument's, in the same order, and depends on others in means only.
VIEWS = {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "reshape_as", "view_as", "squeeze", "unsqueeze"}
_STANDARDIZING = {
    *_SCALING,
    *VIEWS,
    "_weight_norm",
    "_weight_norm_interface",
    "sub",
    "batch_norm",
    "layer_norm",
    "pow",
    "square",
}
_PADDING = {"pad", "constant_pad_nd", "slice", "narrow"}


def weight_norm(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """g * v / |v|: the magnitudes g write nodes. A direction v of length 0 gives NaN, so it only follows."""
    direction, magnitude = arguments["v"], arguments["g"]
    dims, lengths = flow.dims(direction), flow.dims(magnitude)
    zeros = flow.zeros(direction).difference(leaves(joint(lengths)))
    for place, (dim, length) in enumerate(zip(dims, lengths, strict=False)):
        if length:
            flow.align(node, dim, length)
            _only_follows(flow, direction, place)
        elif not flow.is_parameter(direction):
            flow.contract(dim, node, [direction])
    flow.vanishes(node, flow.zeros(magnitude) | zeros)
    return [dims, lengths] if isinstance(node.meta["val"], list | tuple) else dims


def lengths(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """norm_except_dim"""
    rank = len(flow.dims(arguments["v"]))
    if arguments["pow"] < 0 or arguments["dim"] == -1:
        return f"has no rule for the power {arguments['pow']} of dimension {arguments['dim']}"
    others = [place for place in range(rank) if place != arguments["dim"]]
    return reduction(summed)(flow, node, {**arguments, "dim": others})


def note_acting(flow: Flow, node: fx.Node) -> None:
    """Whether the result of `node` represents a parameter, with its dimensions and its roles there."""
    source = _source(flow, node)
    if source is None:
        return
    flow.origins[node] = source
    if not isinstance(node.meta["val"], Tensor):
        return
    if name_of(node) == "div" and isinstance(node.args[1], fx.Node):
        _divided(flow, source, node.args[1])
    if list(map(whole, flow.dims(source))) == list(map(whole, flow.dims(node))):
        flow.tensors[node] = flow.tensors[source]


def origin(flow: Flow, node: fx.Node) -> fx.Node | None:
    """The parameter, or its representative, whose entries `node` has in order, scaled or standardized."""
    return node if flow.is_parameter(node) else flow.origins.get(node)


def _source(flow: Flow, node: fx.Node) -> fx.Node | None:
    """The `origin` of a new node."""
    name, first = name_of(node), node.args[0] if node.args else None
    if name == "getitem" and isinstance(first, fx.Node):
        return origin(flow, first) if node.args[1] == 0 and name_of(first) == "_weight_norm_interface" else None
    if name not in _STANDARDIZING | _PADDING or (name == "sub" and _size(node.args[1]) == _size(node)):
        return None  # among others, the difference of two weights
    for given in node.args[: 2 if name == "mul" else 1]:
        same = name in {*_PADDING, "_weight_norm_interface"} or _size(given) == _size(node)
        if isinstance(given, fx.Node) and same and (found := origin(flow, given)) is not None:
            return found
    return None


def _size(value: object) -> int:
    example = value.meta.get("val") if isinstance(value, fx.Node) else None
    return example.numel() if isinstance(example, Tensor) else 0


def _divided(flow: Flow, source: fx.Node, divisor: fx.Node) -> None:
    """Division by a value that is zero where the weight is zero, such as its length: zero by zero is NaN."""
    zeros = flow.zeros(divisor)
    for place, dim in enumerate(flow.dims(source)):
        if zeros.intersection(leaves(dim)):
            _only_follows(flow, source, place)


def _only_follows(flow: Flow, parameter: fx.Node, place: int) -> None:
    if flow.is_parameter(parameter):
        flow.follows.add((flow.tensors[parameter], place))
