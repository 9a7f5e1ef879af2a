"""Means over nodes, as in layer normalization: sums over the remaining nodes, divided by the original number.

A dead node counts in a mean, even if it is zero. If it is zero, the mean over n nodes, of which m remain, is the sum
over the m divided by n. The number n is recorded for every such operator, and for the module whose code calls it, or
for the tensor of a layer that takes means over its weights.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import fx, nn

from compress.graph.dimensions import BATCH, Dim, is_kept, joint, keep, leaves, regroup, size_of, whole
from compress.graph.flow import Flow, Number, Value, arguments_of, at, layer_at, owner_of
from compress.graph.names import name_of
from compress.graph.shifts import without_shifts
from compress.graph.weights import VIEWS, origin

NormKind = Literal["layer", "rms", "group"]

_ATEN = torch.ops.aten
VARIANCES = {_ATEN.var, _ATEN.std, _ATEN.var_mean, _ATEN.std_mean}
_OPERATORS = {
    "layer": {_ATEN.layer_norm, *VARIANCES},
    "rms": {_ATEN.rms_norm, _ATEN.mean},
    "group": {_ATEN.group_norm},
}


def layer_normalization(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Layer and root-mean-square normalization, over one dimension or several."""
    dims, source = flow.dims(arguments["input"]), arguments["input"]
    own = [tensor for name in ("weight", "bias") if (tensor := arguments.get(name)) is not None]
    for tensor in own:
        for one, other in zip(flow.dims(tensor)[::-1], dims[::-1], strict=False):
            flow.align(node, one, other)
    normalized = dims[len(dims) - len(arguments["normalized_shape"]) :]
    if len(normalized) > 1 and "bias" not in arguments:
        keep(normalized, f"{at(node)} takes the mean over its nodes, in several dimensions")
    if joined := not_kept(normalized):
        if len(normalized) == 1 and "bias" in arguments:
            for factor in set(leaves(joined)) - flow.zeros(source):
                without_shifts(flow, source, factor)
        count(flow, node, joined, source)
    zeros = flow.zeros(source)
    if "bias" in arguments:  # Where the mean is subtracted, zeros remain zeros in whole rows of them only.
        zeros = zeros.intersection(leaves(joint(dims[: len(dims) - len(normalized)]))) if not own else set()
    scaled = [factor for factor in leaves(joined) if own and all(factor in flow.zeros(tensor) for tensor in own)]
    flow.vanishes(node, [*scaled, *zeros])
    return dims


def group_normalization(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Group normalization: whole groups can be cut, and nodes if there is a single group."""
    dims, name_of_count = flow.dims(arguments["input"]), "num_groups" if "num_groups" in arguments else "group"
    groups = arguments[name_of_count]
    pieces = regroup([dims[1]], [groups, size_of(dims[1]) // groups])
    if pieces is None:
        return "has groups whose borders do not meet those of its nodes"
    if groups > 1 or "C" in arguments:
        keep((pieces[1], dims[2:]), f"{at(node)} takes the mean over its nodes")
    elif joined := not_kept(dims[1:]):
        count(flow, node, joined, arguments["input"])
    own = [arguments[name] for name in ("weight", "bias") if arguments[name] is not None]
    for tensor in own:
        flow.align(node, flow.dims(tensor)[0], dims[1])
    flow.number(node, name_of_count, [(0, pieces[0])])
    if "C" in arguments:  # the native operator's own statement of its sizes
        flow.number(node, "C", [(0, dims[1])])
    flow.attribute(node, (nn.GroupNorm,), "num_groups", [(0, pieces[0])])
    flow.attribute(node, (nn.GroupNorm,), "num_channels", [(0, dims[1])])
    if len(own) == 2:
        flow.vanishes(node, set.intersection(*map(flow.zeros, own)))
    return dims


def count(flow: Flow, node: fx.Node, dim: Dim, source: fx.Node) -> None:
    """`node` takes the mean of `source` over `dim`; it must still divide by the number of nodes before the cut.

    In a variance, the mean of (x - mean)**2, x must be zero at dead nodes, which then add the square of the mean.
    """
    if not is_kept(dim):
        flow.contract(dim, node, [_centred(node) or source], "takes the mean")
    if not is_kept(dim):
        flow.numbers[Number("mean", node.name, 0)].append(dim)
        if weights := _weights(flow, node, dim, source):
            for name, place, own in weights:
                flow.numbers[Number("weights", name, place)].append(own)
        elif (axis := _axis(flow, node, dim)) is not None:
            flow.numbers[Number("norm", layer_at(node), axis)].append(dim)


def variance(flow: Flow, node: fx.Node, dim: Dim, source: fx.Node) -> None:
    """As `count`, for variances and standard deviations. One over a batch with the divisor n - 1 keeps its width."""
    results = node.meta["val"]
    result = results[0] if isinstance(results, tuple | list) else results
    if source.meta["val"].numel() // result.numel() % BATCH == 0:
        keep(dim, f"{at(node)} combines all of its nodes, and the batch")
    both = shifted(node)
    alike = both and set(leaves(dim)).isdisjoint(leaves(joint(flow.dims(both[1]))))  # what it subtracts from all nodes
    count(flow, node, dim, both[0] if both and alike else source)


def not_kept(dims: Iterable[Dim]) -> Dim:
    """The product of the `dims` that need not keep their size."""
    return joint(dim for dim in dims if not is_kept(dim))


def _weights(flow: Flow, node: fx.Node, dim: Dim, source: fx.Node) -> list[tuple[str, int, Dim]]:
    """(parameter, dimension, nodes) for each factor in `dim`, if a layer takes the mean over its weight."""
    weight = origin(flow, source)
    if weight is None or owner_of(flow.tensors[weight]) != layer_at(node).partition(".parametrizations.")[0]:
        return []
    counted = set(leaves(dim))
    places = enumerate(flow.dims(weight))
    return [(flow.tensors[weight], place, own) for place, own in places if counted.intersection(leaves(own))]


def norm_kind(module: nn.Module) -> NormKind | None:
    """The kind of norm that a module is, judged by its parameters and its epsilon; None if it is not a known norm."""
    names = {name for name, _ in module.named_parameters()}
    if isinstance(module, nn.LayerNorm):
        return "layer"
    if isinstance(module, nn.GroupNorm):
        return "group" if module.num_groups == 1 else None
    if names == {"weight"} and epsilon_of(module):
        return "rms"
    return "layer" if names == {"weight", "bias"} and epsilon_of(module) else None


def epsilon_of(module: nn.Module) -> str | None:
    """The attribute with the epsilon of a norm; None if there is none, or more than one."""
    names = [name for name, value in vars(module).items() if "eps" in name and isinstance(value, float | None)]
    return names[0] if len(names) == 1 else None


def centre(node: fx.Node) -> fx.Node | None:
    """The value c of a mean (x - c)**2, with the dimensions of x; None where `node` is another mean."""
    difference = _squared(node.all_input_nodes[0])
    if difference is None or difference.target is not _ATEN.sub.Tensor or not arguments_of(node).get("keepdim"):
        return None
    return difference.args[1] if isinstance(difference.args[1], fx.Node) else None


def shifted(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Of a variance of x - c, or of a view of it, x and c, where c has an entry for each of its results."""
    given, results = node.all_input_nodes[0], node.meta["val"]
    while name_of(given) in VIEWS and isinstance(given.args[0], fx.Node):
        given = given.args[0]
    if given.target is not _ATEN.sub.Tensor or not all(isinstance(operand, fx.Node) for operand in given.args):
        return None
    x, shift = given.all_input_nodes
    result = results[0] if isinstance(results, tuple | list) else results
    return (x, shift) if shift.meta["val"].numel() == result.numel() else None


def _centred(node: fx.Node) -> fx.Node | None:
    """The x of a mean of (x - mean of x)**2, both over the same dimensions; None where `node` is another mean."""
    mean = centre(node)
    if mean is not None and mean.target is _ATEN.mul.Tensor and not isinstance(mean.args[1], fx.Node):
        mean = mean.all_input_nodes[0]  # which counts the nodes of an earlier cut
    if mean is None or mean.target is not node.target or mean.args[1:] != node.args[1:] or mean.kwargs != node.kwargs:
        return None
    difference = _squared(node.all_input_nodes[0])
    return mean.all_input_nodes[0] if difference and difference.args[0] is mean.all_input_nodes[0] else None


def _squared(node: fx.Node) -> fx.Node | None:
    """The value that `node` is the square of."""
    packet = getattr(node.target, "overloadpacket", None)
    square = (
        packet is _ATEN.square
        or (packet is _ATEN.pow and node.args[1] == 2)
        or (packet is _ATEN.mul and node.args[0] is node.args[1])
    )
    return node.all_input_nodes[0] if square else None


def _axis(flow: Flow, node: fx.Node, dim: Dim) -> int | None:
    """Where the module whose code calls `node` has `dim` in its input: 0 if last; None if it is not a norm over it."""
    path, kind = layer_at(node), norm_kind(flow.module_at(node))
    operator = _ATEN.layer_norm if centre(node) else getattr(node.target, "overloadpacket", None)
    if not path or kind is None or operator not in _OPERATORS[kind]:
        return None
    source = node
    while source.op == "call_function" and layer_at(source) == path:
        source = source.all_input_nodes[0]
    value = flow.values[source]
    dims: Iterable[Any] = value if isinstance(value, tuple) else ()
    found = [place for place, one in enumerate(dims) if one and whole(one) == whole(dim)]
    if len(found) != 1:
        return None
    return 0 if found[0] == len(flow.dims(source)) - 1 else found[0]
