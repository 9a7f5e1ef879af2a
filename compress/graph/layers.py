"""Rules of the operators that have weights: linear layers, convolutions, norms and embeddings."""

from typing import Any

from torch import fx, nn

from compress.graph.contractions import add_bias, contraction, count_positions, letters_of
from compress.graph.dimensions import Dim, fresh, joint, keep, leaves, regroup, size_of
from compress.graph.flow import EXTENT, TABLE, Flow, Rule, Value, at, fresh_value
from compress.graph.norms import count, not_kept
from compress.graph.windows import new_extents

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def linear(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    source, weight = arguments["input"], arguments["weight"]
    letters, out = letters_of(len(flow.dims(source)) - 1), "o" * (len(flow.dims(weight)) - 1)
    result = contraction(flow, node, [(source, letters + "i"), (weight, out + "i")], letters + out)
    add_bias(flow, node, result, len(result) - 1, arguments["bias"])
    return result


def convolution(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """A linear layer over windows: weight [groups * o, i, *window], input [..., groups * i, *extents]."""
    weight, (groups, _) = flow.dims(arguments["weight"]), _groups(flow, node, arguments)
    if groups is None:
        return "has groups whose borders do not meet those of its nodes"
    return _windowed(flow, node, arguments, groups, summed=weight[1], writes=weight[0], column=1)


def transposed_convolution(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """weight [groups * i, o, *window]."""
    weight, (groups, each) = flow.dims(arguments["weight"]), _groups(flow, node, arguments)
    if groups is None or each is None:
        return "has groups whose borders do not meet those of its nodes"
    return _windowed(flow, node, arguments, groups, summed=each, writes=(*groups, *weight[1]), column=0)


def _groups(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> tuple[Dim | None, Dim | None]:
    """The first dimension of the weight as groups and nodes of one group."""
    groups, width = arguments["groups"], flow.dims(arguments["weight"])[0]
    computed = isinstance(groups, fx.Node)  # a group for each sample, whose weights were computed for it
    count = groups.meta["val"] if computed else groups
    if count == 1:
        return (), width
    pieces = regroup([width], [count, size_of(width) // count])
    if pieces is None:
        return None, None
    if computed:
        return pieces[0], pieces[1]
    flow.number(node, "groups", [(0, pieces[0])])
    flow.attribute(node, CONVOLUTIONS, "groups", [(0, pieces[0])])
    return pieces[0], pieces[1]


def _windowed(
    flow: Flow, node: fx.Node, arguments: dict[str, Any], groups: Dim, *, summed: Dim, writes: Dim, column: int
) -> Value | str:
    """The layer sums over `summed` within each of `groups`; dimension `column` of its weight reads."""
    source, weight, bias = (arguments[name] for name in ("input", "weight", "bias"))
    rank = len(flow.dims(weight)) - 2
    keep(flow.dims(weight)[2:], EXTENT)
    *rest, nodes = flow.dims(source)[: len(flow.dims(source)) - rank]
    flow.align(node, nodes, (*groups, *summed))
    extents = _extents(flow, node, arguments, rank)
    if weight in flow.tensors:
        flow.reads.add((flow.tensors[weight], column))
        flow.writes.add((flow.tensors[weight], 1 - column))
        count_positions(flow, weight, extents if column else flow.dims(source)[len(flow.dims(source)) - rank :])
    if not flow.holds_zeros(weight, summed):
        flow.contract(summed, node, (source, weight))
    result = (*rest, writes, *extents)
    # A group's result depends on its own nodes only, and a position's on its own values where windows are single.
    alone = flow.zeros(source).intersection(leaves(joint((groups, *extents))))
    flow.vanishes(node, alone | flow.zeros(weight).intersection(leaves(writes)))
    add_bias(flow, node, result, len(rest), bias)
    return result


def _extents(flow: Flow, node: fx.Node, arguments: dict[str, Any], rank: int) -> tuple[Dim, ...]:
    """The last dimensions of the result: those of the input if each window is a single position (1 x 1)."""
    single = all(
        size == 1 and stride == 1 and not padding
        for size, stride, padding in zip(
            arguments["weight"].meta["val"].shape[2:],
            *(_for_each(arguments.get(name, 2), rank) for name in ("stride", "padding")),
            strict=True,
        )
    )
    if single:
        dims = flow.dims(arguments["input"])
        return dims[len(dims) - rank :]
    return new_extents(flow, arguments["input"], node.meta["val"], rank)


def _for_each(value: Any, rank: int) -> list[Any]:
    """An argument for each dimension; of a padding by name, whether it may add anything."""
    several = value if isinstance(value, list | tuple) else [value if value != "valid" else 0]
    return [*several] * (rank // len(several))


def any_convolution(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """The one operator that all convolutions become in a program whose operators were decomposed."""
    return (transposed_convolution if arguments["transposed"] else convolution)(flow, node, arguments)


def deformable_convolution(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """torchvision's deformable convolution: `offset` [N, ..., height, width] moves its windows."""
    result = convolution(flow, node, arguments)
    source = flow.dims(arguments["input"])
    for name in ("offset", "mask"):
        rows, *others = flow.dims(arguments[name])
        keep(others, f"{at(node)} takes it for positions of a picture")
        if size_of(rows) == size_of(source[0]):
            flow.align(node, rows, source[0])
    if arguments["offset_groups"] > 1:
        keep(source[1], f"{at(node)} has several groups of offsets")
    return result


def normalization(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Batch and instance normalization: channel by channel, with a scale, a shift and running statistics."""
    dims = flow.dims(arguments["input"])
    own = [arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    for tensor in own:
        if tensor is not None:
            flow.align(node, flow.dims(tensor)[0], dims[1])
    measured = bool(arguments.get("use_input_stats") or arguments.get("training") or own[2] is None)
    if measured and "use_input_stats" not in arguments:
        if joined := not_kept((dims[0], *dims[2:])):  # of a weight, as in weight standardization
            count(flow, node, joined, arguments["input"])
    elif "use_input_stats" in arguments:
        keep(dims[2:], EXTENT)
    scale, shift = own[:2]
    # Without a scale, zeros remain zeros only where their own mean is subtracted.
    zeros = flow.zeros(arguments["input"] if scale is None else scale) if scale is not None or measured else set()
    flow.vanishes(node, zeros if shift is None else zeros & flow.zeros(shift))
    return dims


def with_statistics(rule: Rule) -> Rule:
    """For operators that also return what their backward pass needs."""

    def several(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
        result = rule(flow, node, arguments)
        return result if isinstance(result, str) else [result, *(fresh_value(v, EXTENT) for v in node.meta["val"][1:])]

    return several


def decomposed_layer_normalization(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """The operator of layer normalization in a program: its mean is over all nodes, including dead ones."""
    dims = flow.dims(arguments["input"])
    for tensor in (arguments.get("weight"), arguments.get("bias")):
        if tensor is not None:
            for one, other in zip(flow.dims(tensor)[::-1], dims[::-1], strict=False):
                flow.align(node, one, other)
    keep(dims[len(dims) - len(arguments["normalized_shape"]) :], f"{at(node)} takes the mean over its nodes")
    return dims


def embedding(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    weight = arguments["weight"]
    keep(flow.dims(weight)[:1], TABLE)
    if weight in flow.tensors:
        flow.writes.add((flow.tensors[weight], 1))
    flow.vanishes(node, flow.zeros(weight).intersection(leaves(flow.dims(weight)[1])))
    return (*flow.dims(arguments["indices"]), *flow.dims(weight)[1:])


def embedding_bag(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Sums, means or maxima over bags of rows, which begin at `offsets`, and what the backward pass needs."""
    weight, offsets, results = arguments["weight"], arguments["offsets"], node.meta["val"]
    keep((flow.dims(weight)[:1], flow.dims(arguments["indices"])), TABLE)
    if weight in flow.tensors:
        flow.writes.add((flow.tensors[weight], 1))
    flow.vanishes(node, flow.zeros(weight).intersection(leaves(flow.dims(weight)[1])))
    bags, same = flow.dims(offsets)[0], results[0].shape[0] == offsets.meta["val"].shape[0]
    found = bags if same else fresh(results[0].shape[0], EXTENT)
    return [(found, *flow.dims(weight)[1:]), *(fresh_value(result, EXTENT) for result in results[1:])]
