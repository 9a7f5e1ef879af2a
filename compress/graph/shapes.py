"""Rules of the operators that move, join, cut and reduce dimensions without weights."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx, nn

from compress.graph.dimensions import Dim, fresh, is_kept, keep, regroup, size_of, split, total
from compress.graph.flow import EXTENT, Flow, Rule, Value, at, fresh_value
from compress.graph.layers import new_extents

_BORDERS = "regroups dimensions whose borders do not meet"


def elementwise(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Node j of the result depends on node j of the operands only, whatever f(0) is; sizes of 1 are broadcast."""
    example = node.meta["val"]
    if not isinstance(example, torch.Tensor):
        return "has no rule"
    result: list[Dim] = [()] * example.ndim
    for source in node.all_input_nodes:
        value = flow.values[source]
        for index, dim in enumerate(value[::-1] if isinstance(value, tuple) else (), 1):
            if result[-index] and dim:
                flow.align(node, result[-index], dim)
            result[-index] = result[-index] or dim
    return tuple(result)


def slopes(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """PReLU: one slope, or one for each channel."""
    dims, slope = flow.dims(arguments["self"]), flow.dims(arguments["weight"])
    if slope and slope[0]:
        flow.align(node, slope[0], dims[1] if len(dims) > 1 else dims[0])
    return dims


def view(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    name = "size" if "size" in arguments else "shape"
    if name not in arguments:  # a view as another dtype
        return "has no rule"
    result = _regrouped(flow, node, arguments)
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
    """Those of `dims` whose size is a number, with their places: neither a batch nor a size that adapts."""
    places = enumerate(zip(sizes, dims, strict=True))
    return [(place, dim) for place, (size, dim) in places if isinstance(size, int) and size != -1]


def _regrouped(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> tuple[Dim, ...] | str:
    sizes = node.meta["val"].shape
    return regroup(flow.dims(arguments["self"]), sizes) or ("has no rule" if not sizes else _BORDERS)


def permute(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Any operator that permutes: its result for a tensor of distinct sizes shows where each dimension ends up."""
    dims = flow.dims(node.all_input_nodes[0])
    sample = torch.empty([index + 2 for index in range(len(dims))], device="meta")
    moved = node.target(sample, *node.args[1:], **node.kwargs)  # type: ignore[operator]
    return tuple(dims[size - 2] for size in moved.shape)


def squeeze(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims, wanted = flow.dims(arguments["self"]), arguments.get("dim")
    places = _places(wanted, len(dims))
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
    return tuple((*fresh(size // size_of(dim), EXTENT), *dim) for size, dim in zip(shape, dims, strict=True))


def concatenate(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    sources = [flow.dims(source) for source in arguments["tensors"]]
    if len({len(dims) for dims in sources}) > 1:
        return "joins tensors with different numbers of dimensions"
    place = arguments["dim"] % len(sources[0])
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


def pieces(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Consecutive pieces, of equal sizes or not; after a cut each has its own."""
    dims, results = flow.dims(arguments["self"]), node.meta["val"]
    place = arguments["dim"] % len(dims)
    sizes = [result.shape[place] for result in results]
    parts = [fresh(size, EXTENT) for size in sizes] if is_kept(dims[place]) else split(dims[place], sizes)
    if parts is None:
        return "cuts a batch"
    flow.number(node, "split_sizes", enumerate(parts))
    return [(*dims[:place], part, *dims[place + 1 :]) for part in parts]


def part(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """A slice."""
    dims, shape = flow.dims(arguments["self"]), node.meta["val"].shape
    place = arguments["dim"] % len(dims)
    dim, size = dims[place], shape[place]
    if size == size_of(dim):
        return dims
    if arguments.get("step", 1) != 1:
        keep(dim, f"{at(node)} takes every {arguments['step']}th node")
    if size == 0:
        return "takes nothing"
    if is_kept(dim):
        return (*dims[:place], fresh(size, EXTENT), *dims[place + 1 :])
    start = arguments["start"] or 0
    if not isinstance(start, int):
        return "cuts a batch"
    start = start + size_of(dim) if start < 0 else start
    sizes = [length for length in (start, size, size_of(dim) - start - size) if length]
    parts = split(dim, sizes)
    if parts is None:
        return "cuts a batch"
    found = parts[1 if start else 0]
    flow.number(node, "start", [(0, parts[0])] if start else [])
    # An end beyond the last position means all positions, and adapts by itself.
    ends = isinstance(arguments["end"], int) and arguments["end"] < size_of(dim)
    flow.number(node, "end", [(0, total(parts[: 2 if start else 1]))] if ends else [])
    return (*dims[:place], found, *dims[place + 1 :])


def item(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    several: Any = flow.values[node.all_input_nodes[0]]
    found: Value = several[node.args[1]] if several else None
    return "has no rule" if found is None else found


def select(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims = flow.dims(arguments["self"])
    place = arguments["dim"] % len(dims)
    keep(dims[place], f"{at(node)} takes one of its positions")
    rest = (*dims[:place], *dims[place + 1 :])
    return [rest] * len(node.meta["val"]) if isinstance(node.meta["val"], tuple | list) else rest


def index(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Positions along some dimensions, taken from tensors of numbers; the other dimensions do not change."""
    dims, taken = flow.dims(arguments["self"]), arguments["indices"]
    places = [place for place, numbers in enumerate(taken) if numbers is not None]
    keep([dims[place] for place in places], f"{at(node)} takes some of its positions")
    count = node.meta["val"].ndim - (len(dims) - len(places))
    adjacent = places == list(range(places[0], places[-1] + 1))
    first = places[0] if adjacent else 0
    for numbers in taken:
        if numbers is not None:
            keep(flow.values[numbers], EXTENT)
    new = [fresh(size, EXTENT) for size in node.meta["val"].shape[first : first + count]]
    rest = [dim for place, dim in enumerate(dims) if place not in places]
    return (*rest[:first], *new, *rest[first:])


def index_select(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims = flow.dims(arguments["self"])
    place = arguments["dim"] % len(dims)
    keep(dims[place], f"{at(node)} takes some of its positions")
    return (*dims[:place], fresh(node.meta["val"].shape[place], EXTENT), *dims[place + 1 :])


def summed(flow: Flow, node: fx.Node, dim: Dim, source: fx.Node) -> None:
    flow.contract(dim, node, [source])


def combined(flow: Flow, node: fx.Node, dim: Dim, source: fx.Node) -> None:
    keep(dim, f"{at(node)} combines all of its nodes")


def reduction(over: Callable[[Flow, fx.Node, Dim, fx.Node], None]) -> Rule:
    """Dimensions that disappear, or become 1. `over` says whether that is exact without dead nodes."""

    def rule(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
        source = node.all_input_nodes[0]
        dims, results = flow.dims(source), node.meta["val"]
        places = _places(arguments.get("dim"), len(dims))
        if joined := tuple(factor for place in places if not is_kept(dims[place]) for factor in dims[place]):
            over(flow, node, joined, source)
        kept = [() if index in places else dim for index, dim in enumerate(dims)]
        left = [dim for index, dim in enumerate(dims) if index not in places]
        several = isinstance(results, tuple | list)
        shape = results[0].shape if several else results.shape
        result = tuple(kept if len(shape) == len(dims) else left)
        return [result] * len(results) if several else result

    return rule


def along(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Mixes the positions of some dimensions, such as softmax, cumsum, roll and flip, and leaves all sizes alone."""
    dims, results = flow.dims(node.all_input_nodes[0]), node.meta["val"]
    for place in _places(arguments["dims"] if "dims" in arguments else arguments["dim"], len(dims)):
        keep(dims[place], f"{at(node)} combines all of its nodes")
    return [dims] * len(results) if isinstance(results, tuple | list) else dims


def _places(wanted: int | Sequence[int] | None, rank: int) -> list[int]:
    """The dimensions that an argument names; all of them for None and for an empty list."""
    if wanted is None or wanted == []:
        return list(range(rank))
    several: Iterable[int] = [wanted] if isinstance(wanted, int) else wanted
    return [place % rank for place in several] if rank else []


def pad(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims, shape = list(flow.dims(arguments["self"])), node.meta["val"].shape
    amounts = arguments["pad"] if "pad" in arguments else arguments["padding"]
    for number in range(len(amounts) // 2):
        if any(amounts[2 * number : 2 * number + 2]):
            keep(dims[-1 - number], EXTENT)
            dims[-1 - number] = fresh(shape[-1 - number], EXTENT)
    return tuple(dims)


def resampled(rank: int) -> Rule:
    def rule(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
        """Pooling or upsampling over the last `rank` dimensions; with positions of maxima, two results alike."""
        source, results = node.all_input_nodes[0], node.meta["val"]
        before = flow.dims(source)[: len(flow.dims(source)) - rank]
        if isinstance(results, torch.Tensor):
            return (*before, *new_extents(flow, source, results, rank))
        return [(*before, *new_extents(flow, source, result, rank)) for result in results]

    return rule


def pixel_shuffle(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """channels x r x r, height, width -> channels, height x r, width x r"""
    source, block = arguments["self"], arguments["upscale_factor"] ** 2
    *rest, channels, _, _ = flow.dims(source)
    found = regroup([channels], [size_of(channels) // block, block])
    if found is None:
        return _BORDERS
    keep(found[1], EXTENT)
    return (*rest, found[0], *new_extents(flow, source, node.meta["val"], 2))


def pixel_unshuffle(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    source, block = arguments["self"], arguments["downscale_factor"] ** 2
    *rest, channels, _, _ = flow.dims(source)
    return (*rest, (*channels, *fresh(block, EXTENT)), *new_extents(flow, source, node.meta["val"], 2))


def channel_shuffle(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims, groups = flow.dims(arguments["self"]), arguments["groups"]
    found = regroup([dims[1]], [groups, size_of(dims[1]) // groups])
    if found is None:
        return _BORDERS
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
    """A new tensor with the same number everywhere, whose sizes are in the code."""
    value = fresh_value(node.meta["val"])
    assert isinstance(value, tuple)
    flow.number(node, "size", _spelled_out(arguments["size"], value))
    return value


def constant(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    return fresh_value(node.meta["val"], f"{at(node)} makes numbers that differ from position to position")


def number(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> None:
    """A size or an assertion: no values pass."""
