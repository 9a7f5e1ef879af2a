"""Rules of the operators that pass, move and join dimensions without weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from compress.graph.dimensions import Dim, fresh, keep, regroup, size_of, split, total
from compress.graph.flow import BORDERS, EXTENT, Flow, Value, at, fresh_value, places_of
from compress.graph.names import name_of


def elementwise(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Node j of the result depends only on node j of the operands, whatever f(0) is; sizes of 1 are broadcast."""
    examples = node.meta["val"]
    several = isinstance(examples, tuple | list)
    rank = (examples[0] if several else examples).ndim
    result: list[Dim] = [()] * rank
    for source in node.all_input_nodes:
        value = flow.values[source]
        if isinstance(value, list) or len(value or ()) > rank:
            return "has no rule"
        for index, dim in enumerate(value[::-1] if isinstance(value, tuple) else (), 1):
            if result[-index] and dim:
                flow.align(node, result[-index], dim)
            result[-index] = result[-index] or dim
    return [tuple(result)] * len(examples) if several else tuple(result)


def slopes(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """PReLU: one slope, or one for each channel."""
    dims, slope = flow.dims(arguments["self"]), flow.dims(arguments["weight"])
    if slope and slope[0]:
        flow.align(node, slope[0], dims[1] if len(dims) > 1 else dims[0])
    return dims


def view(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Also reshape_as: the sizes are those of another tensor, whose dimensions are the same then."""
    result = _regrouped(flow, node, arguments)
    if "other" in arguments and isinstance(result, tuple):
        for one, other in zip(result, flow.dims(arguments["other"]), strict=True):
            flow.align(node, one or other, other or one)
        return result
    name = "size" if "size" in arguments else "shape"
    if name not in arguments:  # as another dtype
        same = arguments["self"].meta["val"].shape == node.meta["val"].shape
        return flow.dims(arguments["self"]) if same else "has no rule"
    if isinstance(result, tuple):
        flow.number(node, name, _spelled_out(arguments[name], result))
    return result


def flatten(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    return _regrouped(flow, node, arguments)


def unflatten(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    result = _regrouped(flow, node, arguments)
    if isinstance(result, tuple):
        first, count = arguments["dim"] % len(flow.dims(arguments["self"])), len(arguments["sizes"])
        pieces = _spelled_out(arguments["sizes"], result[first : first + count])
        flow.number(node, "sizes", pieces)
        flow.attribute(node, (nn.Unflatten,), "unflattened_size", pieces)
    return result


def _spelled_out(sizes: Sequence[Any], dims: Sequence[Dim]) -> list[tuple[int, Dim]]:
    """Those of `dims` whose size is a number, or a product of one and the batch, with their places; -1 adapts."""
    return [(place, dim) for place, (size, dim) in enumerate(zip(sizes, dims, strict=True)) if size != -1]


def _regrouped(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> tuple[Dim, ...] | str:
    sizes = node.meta["val"].shape
    return regroup(flow.dims(arguments["self"]), sizes) or ("has no rule" if not sizes else BORDERS)


def permute(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Any operator that permutes: its result for a tensor of distinct sizes shows where each dimension ends up."""
    dims = flow.dims(node.all_input_nodes[0])
    sample = torch.empty([index + 2 for index in range(len(dims))], device="meta")
    moved = node.target(sample, *node.args[1:], **node.kwargs)  # type: ignore[operator]
    return tuple(dims[size - 2] for size in moved.shape)


def squeeze(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims, wanted = flow.dims(arguments["self"]), arguments.get("dim")
    places = places_of(wanted, len(dims))
    shape = arguments["self"].meta["val"].shape
    return tuple(dim for index, dim in enumerate(dims) if index not in places or shape[index] != 1)


def unsqueeze(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims = list(flow.dims(arguments["self"]))
    dims.insert(arguments["dim"] % (len(dims) + 1), ())
    return tuple(dims)


def expand(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    shape = node.meta["val"].shape
    dims = (((),) * len(shape) + flow.dims(arguments["self"]))[-len(shape) :] if len(shape) else ()
    result = tuple(dim or fresh(size) for dim, size in zip(dims, shape, strict=True))
    if "size" in arguments:
        flow.number(node, "size", _spelled_out(arguments["size"], result))
    elif isinstance(like := arguments.get("other"), fx.Node):
        for one, other in zip(result, flow.dims(like), strict=True):
            flow.align(node, one, other)
    return result


def repeat(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    shape = node.meta["val"].shape
    dims = ((),) * (len(shape) - len(flow.dims(arguments["self"]))) + flow.dims(arguments["self"])
    if 0 in shape:
        return "takes nothing"
    times = tuple(fresh(size // size_of(dim)) for size, dim in zip(shape, dims, strict=True))
    if "repeats" in arguments:
        flow.number(node, "repeats", _spelled_out(arguments["repeats"], times))
    else:
        keep(times, EXTENT)
    return tuple((*count, *dim) for count, dim in zip(times, dims, strict=True))


def repeat_interleave(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Each position several times, beside each other."""
    dims, shape = list(flow.dims(arguments["self"])) if "self" in arguments else [], node.meta["val"].shape
    if not isinstance(arguments.get("repeats"), int) or "self" not in arguments:
        return "repeats each position another number of times"
    if arguments["dim"] is None:
        dims = [tuple(factor for dim in dims for factor in dim)]
    place = (arguments["dim"] or 0) % len(dims)
    dims[place] = (*dims[place], *fresh(shape[place] // size_of(dims[place]), EXTENT))
    flow.number(node, "output_size", [(0, dims[place])] if isinstance(arguments["output_size"], int) else [])
    return tuple(dims)


def meshgrid(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims = [(flow.dims(tensor) or ((),))[0] for tensor in arguments["tensors"]]
    if arguments.get("indexing") == "xy":
        dims[:2] = dims[1::-1]
    return [tuple(dims)] * len(dims)


def view_as_complex(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    *dims, both = flow.dims(arguments["self"])
    keep(both, f"{at(node)} takes it for real and imaginary parts")
    return tuple(dims)


def view_as_real(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    return (*flow.dims(arguments["self"]), fresh(2, EXTENT))


def concatenate(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    sources = [flow.dims(source) for source in arguments["tensors"]]
    if len({len(dims) for dims in sources}) > 1:
        return "joins tensors with different numbers of dimensions"
    if "dim" not in arguments and not (name_of(node) == "hstack" or len(sources[0]) > 1):
        return "has no rule for vectors"
    # hstack and column_stack: the columns, or all there is of vectors
    place = arguments.get("dim", min(1, len(sources[0]) - 1)) % len(sources[0])
    result = list(_alike(flow, node, sources, but=place))
    result[place] = total(dims[place] for dims in sources)
    return tuple(result)


def stack(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    sources = [flow.dims(source) for source in arguments["tensors"]]
    result = list(_alike(flow, node, sources, but=None))
    result.insert(arguments["dim"] % (len(result) + 1), fresh(len(sources), EXTENT))
    return tuple(result)


def _alike(flow: Flow, node: fx.Node, sources: Sequence[tuple[Dim, ...]], but: int | None) -> tuple[Dim, ...]:
    for dims in sources[1:]:
        for index, (one, other) in enumerate(zip(sources[0], dims, strict=True)):
            if index != but:
                flow.align(node, one, other)
    return sources[0]


def channel_shuffle(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims, groups = flow.dims(arguments["self"]), arguments["groups"]
    found = regroup([dims[1]], [groups, size_of(dims[1]) // groups])
    if found is None:
        return BORDERS
    keep(found[0], EXTENT)
    return (dims[0], (*found[1], *found[0]), *dims[2:])


def gated(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """GLU: the second half gates the first."""
    dims = flow.dims(arguments["self"])
    place = arguments["dim"] % len(dims)
    halves = split(dims[place], [size_of(dims[place]) // 2] * 2)
    if halves is None:
        return "cuts a batch"
    flow.align(node, *halves)
    return (*dims[:place], halves[0], *dims[place + 1 :])


def filled(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """A new constant tensor, whose sizes are in the code."""
    value = fresh_value(node.meta["val"])
    assert isinstance(value, tuple)
    flow.number(node, "size", _spelled_out(arguments["size"], value))
    return value


def constant(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    return fresh_value(node.meta["val"], f"{at(node)} makes numbers that differ from position to position")


def number(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> None:
    """A size or an assertion, which passes no values on."""
