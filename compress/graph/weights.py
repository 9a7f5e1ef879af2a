"""Weights that are computed: which parameter acts through them, so that it is known who reads and writes nodes."""

import operator
from typing import Any

from torch import Tensor, fx

from compress.graph.dimensions import leaves
from compress.graph.flow import Flow, Value
from compress.graph.names import name_of
from compress.graph.reductions import reduction, summed

# Of a tensor as their first argument they change no zero, whatever the others are; `mul` in either order.
_SCALING = {"mul", "div", "neg", "clone", "detach", "alias", "contiguous", "to", "_to_copy", "type_as", "dropout"}


def weight_norm(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """g * v / |v|: the magnitudes g write nodes; a direction v without length is no number, so it only follows."""
    direction, magnitude = arguments["v"], arguments["g"]
    dims, lengths = flow.dims(direction), flow.dims(magnitude)
    for place, (dim, length) in enumerate(zip(dims, lengths, strict=False)):
        if length:
            flow.align(node, dim, length)
            _only_follows(flow, direction, place)
        elif not flow.is_parameter(direction):
            flow.contract(dim, node, [direction])
    flow.vanishes(node, flow.zeros(magnitude))
    return [dims, lengths] if isinstance(node.meta["val"], list | tuple) else dims


def lengths(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """norm_except_dim"""
    rank = len(flow.dims(arguments["v"]))
    if arguments["pow"] < 0 or arguments["dim"] == -1:
        return f"has no rule for the power {arguments['pow']} of dimension {arguments['dim']}"
    others = [place for place in range(rank) if place != arguments["dim"]]
    return reduction(summed)(flow, node, {**arguments, "dim": others})


def note_acting(flow: Flow, node: fx.Node) -> None:
    """Whether the result of `node` acts for a parameter: with its dimensions, and zero where it is zero."""
    if not isinstance(node.meta.get("val"), Tensor):
        return
    name, given = name_of(node), [argument for argument in node.args[:2] if isinstance(argument, fx.Node)]
    if node.target is operator.getitem and node.args[1] == 0 and name_of(given[0]) == "_weight_norm_interface":
        given = [argument for argument in given[0].args[:1] if isinstance(argument, fx.Node)]
    elif name not in (*_SCALING, "_weight_norm"):
        return
    for source in given[: 2 if name == "mul" else 1]:
        if flow.is_parameter(source) and source.meta["val"].shape == node.meta["val"].shape:
            flow.tensors[node] = flow.tensors[source]
            if name == "div" and len(given) == 2:
                _divided(flow, source, given[1])
            return


def _divided(flow: Flow, source: fx.Node, divisor: fx.Node) -> None:
    """By what is zero where it is zero itself, such as its length: zero by zero is no number."""
    dims, zeros = flow.dims(divisor), flow.zeros(divisor)
    for place, dim in enumerate(dims, len(flow.dims(source)) - len(dims)):
        if zeros.intersection(leaves(dim)):
            _only_follows(flow, source, place)


def _only_follows(flow: Flow, parameter: fx.Node, place: int) -> None:
    if flow.is_parameter(parameter):
        flow.follows.add((flow.tensors[parameter], place))
