"""Rules of the operators that have weights, and of products of matrices: every contraction is an einsum."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from compress.graph.dimensions import BATCH, Dim, keep, leaves, regroup, size_of, total
from compress.graph.flow import EXTENT, GATES, TABLE, Flow, Rule, Value, at, fresh_value

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def contraction(flow: Flow, node: fx.Node, operands: Sequence[tuple[fx.Node, str]], result: str) -> tuple[Dim, ...]:
    """The product of `operands` (node, a letter for each dimension), summed over the letters not in `result`.

    In the network's own tensors, summed dimensions read nodes and the others write them. Where no operand with a
    summed letter is such a tensor, one of the operands must be zero at dead nodes.
    """
    dims: dict[str, Dim] = {}
    owners: dict[str, list[fx.Node]] = {}
    for operand, letters in operands:
        for index, (letter, dim) in enumerate(zip(letters, flow.dims(operand), strict=True)):
            flow.align(node, dims.get(letter) or dim, dim or dims.get(letter, ()))
            dims[letter] = dims.get(letter) or dim
            owners.setdefault(letter, []).append(operand)
            if operand in flow.tensors:
                (flow.writes if letter in result else flow.reads).add((flow.tensors[operand], index))
    for letter, sources in owners.items():
        if letter not in result and not any(source in flow.tensors for source in sources):
            flow.contract(dims[letter], node, sources)
    for operand, letters in operands:
        if operand in flow.tensors:
            count_positions(flow, operand, [dims[letter] for letter in result if letter not in letters])
    # A product is zero where one of its factors is.
    other = [
        set(leaves(dims[letter])).difference(*[flow.zeros(operand) for operand in owners[letter]]) for letter in result
    ]
    found = tuple(dims[letter] for letter in result)
    flow.vanishes(node, {factor for dim in found for factor in leaves(dim)}.difference(*other))
    return found


def count_positions(flow: Flow, weight: fx.Node, dims: Sequence[Dim]) -> None:
    """For the multiply-adds: how often each entry of `weight` is used for one sample."""
    entries = math.prod(map(size_of, dims))
    flow.positions[flow.tensors[weight]] += max(1, entries // BATCH if entries % BATCH == 0 else entries)


def _with_bias(flow: Flow, node: fx.Node, width: Dim, bias: fx.Node | None) -> None:
    if bias is not None:
        flow.align(node, flow.dims(bias)[-1] or width, width)
        flow.vanishes(node, flow.zeros(node) & flow.zeros(bias))


def linear(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    source, weight = arguments["input"], arguments["weight"]
    letters = _letters(len(flow.dims(source)) - 1)
    result = contraction(flow, node, [(source, letters + "i"), (weight, "oi")], letters + "o")
    _with_bias(flow, node, result[-1], arguments["bias"])
    return result


def addmm(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Also baddbmm: a bias plus the product of two (batches of) matrices."""
    one, other = (arguments[name] for name in (("mat1", "mat2") if "mat1" in arguments else ("batch1", "batch2")))
    result = _product(flow, node, one, other)
    _with_bias(flow, node, result[-1], arguments["self"])
    return result


def matmul(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    one, other = node.all_input_nodes if len(node.all_input_nodes) == 2 else node.all_input_nodes * 2
    return _product(flow, node, one, other)


def _product(flow: Flow, node: fx.Node, one: fx.Node, other: fx.Node) -> tuple[Dim, ...]:
    ranks = [len(flow.dims(one)), len(flow.dims(other))]
    batch = _letters(max(0, *(rank - 2 for rank in ranks)))
    rows, columns = ("r" if ranks[0] > 1 else ""), ("c" if ranks[1] > 1 else "")
    first = batch[len(batch) - max(0, ranks[0] - 2) :] + rows + "k"
    second = batch[len(batch) - max(0, ranks[1] - 2) :] + "k" + columns
    return contraction(flow, node, [(one, first), (other, second)], batch + rows + columns)


def einsum(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    before, arrow, result = arguments["equation"].replace(" ", "").partition("->")
    terms = before.split(",")
    if not arrow or "." in before or any(len(set(term)) < len(term) for term in terms):
        return "is written in a way that has no rule"
    return contraction(flow, node, list(zip(arguments["tensors"], terms, strict=True)), result)


def attention(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """softmax(query @ key.T / sqrt(size)) @ value: the positions it normalizes over keep their number."""
    query, key, value = (flow.dims(arguments[name]) for name in ("query", "key", "value"))
    if arguments["enable_gqa"]:
        return "groups its queries"
    keep((query[-2], key[-2], value[-2]), EXTENT)
    for one, other in [*zip(query[:-2], key[:-2], strict=True), *zip(query[:-2], value[:-2], strict=True)]:
        flow.align(node, one, other)
    flow.align(node, query[-1], key[-1])
    flow.contract(query[-1], node, (arguments["query"], arguments["key"]))
    if arguments["attn_mask"] is not None:
        for mine, dim in zip(flow.dims(arguments["attn_mask"])[-3::-1], query[-3::-1], strict=False):
            flow.align(node, mine or dim, dim)
    return (*query[:-1], value[-1])


def convolution(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """A linear layer over windows: weight [groups * o, i, *window], input [..., groups * i, *extents]."""
    weight, (groups, _) = flow.dims(arguments["weight"]), _groups(flow, node, arguments)
    if groups is None:
        return "has groups whose borders do not meet those of its nodes"
    return _windowed(flow, node, arguments, reads=(*groups, *weight[1]), writes=weight[0], column=1)


def transposed_convolution(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """weight [groups * i, o, *window]."""
    weight, (groups, _) = flow.dims(arguments["weight"]), _groups(flow, node, arguments)
    if groups is None:
        return "has groups whose borders do not meet those of its nodes"
    return _windowed(flow, node, arguments, reads=weight[0], writes=(*groups, *weight[1]), column=0)


def _groups(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> tuple[Dim | None, Dim | None]:
    """The first dimension of the weight as groups and nodes of one group."""
    count, width = arguments["groups"], flow.dims(arguments["weight"])[0]
    if count == 1:
        return (), width
    pieces = regroup([width], [count, size_of(width) // count])
    if pieces is None:
        return None, None
    flow.number(node, "groups", [(0, pieces[0])])
    flow.attribute(node, CONVOLUTIONS, "groups", [(0, pieces[0])])
    return pieces[0], pieces[1]


def _windowed(
    flow: Flow, node: fx.Node, arguments: dict[str, Any], *, reads: Dim, writes: Dim, column: int
) -> Value | str:
    source, weight, bias = (arguments[name] for name in ("input", "weight", "bias"))
    rank = len(flow.dims(weight)) - 2
    keep(flow.dims(weight)[2:], EXTENT)
    *rest, nodes = flow.dims(source)[: len(flow.dims(source)) - rank]
    flow.align(node, nodes, reads)
    extents = new_extents(flow, source, node.meta["val"], rank)
    if weight in flow.tensors:
        flow.reads.add((flow.tensors[weight], column))
        flow.writes.add((flow.tensors[weight], 1 - column))
        count_positions(flow, weight, extents if column else flow.dims(source)[len(flow.dims(source)) - rank :])
    else:
        flow.contract(reads, node, (source, weight))
    flow.vanishes(node, flow.zeros(weight).intersection(leaves(writes)))
    _with_bias(flow, node, writes, bias)
    return (*rest, writes, *extents)


def new_extents(flow: Flow, source: fx.Node, example: Tensor, count: int) -> tuple[Dim, ...]:
    """The last `count` dimensions, where the operator mixes positions: kept before it and after."""
    keep(flow.dims(source)[len(flow.dims(source)) - count :], EXTENT)
    fresh = fresh_value(example, EXTENT)
    assert isinstance(fresh, tuple)
    return fresh[len(fresh) - count :]


def normalization(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Batch and instance normalization: channel by channel, with a scale, a shift and running statistics."""
    dims = flow.dims(arguments["input"])
    own = [arguments[name] for name in ("weight", "bias", "running_mean", "running_var")]
    for tensor in own:
        if tensor is not None:
            flow.align(node, flow.dims(tensor)[0], dims[1])
    if own[0] is not None and own[1] is not None:
        flow.vanishes(node, flow.zeros(own[0]) & flow.zeros(own[1]))
    if "use_input_stats" in arguments:
        keep(dims[2:], EXTENT)
    return dims


def group_normalization(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Whole groups can be cut; within a group, the mean is over all of its nodes."""
    dims, count = flow.dims(arguments["input"]), arguments["num_groups"]
    pieces = regroup([dims[1]], [count, size_of(dims[1]) // count])
    if pieces is None:
        return "has groups whose borders do not meet those of its nodes"
    keep((pieces[1], dims[2:]), f"{at(node)} takes the mean over its nodes")
    for name in ("weight", "bias"):
        if arguments[name] is not None:
            flow.align(node, flow.dims(arguments[name])[0], dims[1])
    flow.number(node, "num_groups", [(0, pieces[0])])
    flow.attribute(node, (nn.GroupNorm,), "num_groups", [(0, pieces[0])])
    flow.attribute(node, (nn.GroupNorm,), "num_channels", [(0, dims[1])])
    if arguments["weight"] is not None and arguments["bias"] is not None:
        flow.vanishes(node, flow.zeros(arguments["weight"]) & flow.zeros(arguments["bias"]))
    return dims


def embedding(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    weight = arguments["weight"]
    keep(flow.dims(weight)[:1], TABLE)
    if weight in flow.tensors:
        flow.writes.add((flow.tensors[weight], 1))
    flow.vanishes(node, flow.zeros(weight).intersection(leaves(flow.dims(weight)[1])))
    return (*flow.dims(arguments["indices"]), *flow.dims(weight)[1:])


def recurrent(gates: int) -> Rule:
    def rule(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
        """Layers that read their own last state: rows [gates * nodes] in weights and biases, columns in weight_hh."""
        source, states = arguments["input"], arguments["hx"]
        hidden = [flow.dims(state) for state in (states if isinstance(states, list | tuple) else [states])]
        ways, each = 2 if arguments["bidirectional"] else 1, 4 if arguments["has_biases"] else 2
        if len(arguments["params"]) != arguments["num_layers"] * ways * each:
            return "has projections, which have no rule"
        width, reads = hidden[0][-1], flow.dims(source)[-1]
        keep([dims[:-1] for dims in hidden], EXTENT)
        for dims in hidden[1:]:
            flow.align(node, width, dims[-1])
        for start in range(0, len(arguments["params"]), each):
            own = arguments["params"][start : start + each]
            for tensor in own:
                pieces = regroup([flow.dims(tensor)[0]], [gates, size_of(width)])
                if pieces is None:
                    return "has gates whose borders do not meet"
                keep(pieces[0], GATES)
                flow.align(node, width, pieces[1])
            if start and start % (ways * each) == 0:
                reads = total([width] * ways)
            for tensor, dim in zip(own, (reads, width), strict=False):
                flow.align(node, flow.dims(tensor)[1], dim)
                if tensor in flow.tensors:
                    flow.reads.add((flow.tensors[tensor], 1))
                    count_positions(flow, tensor, flow.dims(source)[:-1])
        result = (*flow.dims(source)[:-1], total([width] * ways))
        return [result, *(tuple(dims) for dims in hidden)]

    return rule


def _letters(count: int) -> str:
    return "".join(chr(ord("A") + index) for index in range(count))
