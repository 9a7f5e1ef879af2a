"""Rules of the operators that read or write some positions of a dimension."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from compress.graph.dimensions import Dim, fresh, is_kept, keep, size_of, split, total
from compress.graph.flow import EXTENT, Flow, Value, arguments_of, at
from compress.graph.names import name_of


def pieces(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Consecutive pieces, of equal or different sizes; after a cut, their sizes may differ."""
    dims, results = flow.dims(arguments["self"]), node.meta["val"]
    place = dim_of_pieces(node) % len(dims)
    sizes = [result.shape[place] for result in results]
    parts = [fresh(size, EXTENT) for size in sizes] if is_kept(dims[place]) else split(dims[place], sizes)
    if parts is None:
        return "cuts a batch"
    flow.number(node, "split_sizes", enumerate(parts))
    return [(*dims[:place], part, *dims[place + 1 :]) for part in parts]


def dim_of_pieces(node: fx.Node) -> int:
    """The dimension that an operator cuts into pieces."""
    arguments = arguments_of(node)
    if "dim" in arguments:
        return int(arguments["dim"])
    rank: int = arguments["self"].meta["val"].ndim
    return {"hsplit": min(1, rank - 1), "vsplit": 0, "dsplit": 2}[name_of(node)]


def part(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """A slice."""
    dims, shape = flow.dims(arguments["self"]), node.meta["val"].shape
    place = arguments["dim"] % len(dims)
    found = _part(flow, node, arguments, dims[place], shape[place])
    return found if isinstance(found, str) else (*dims[:place], found, *dims[place + 1 :])


def _part(flow: Flow, node: fx.Node, arguments: dict[str, Any], dim: Dim, size: int) -> Dim | str:
    """The `size` positions of `dim` that the arguments select, by their start and their end or number."""
    if size == size_of(dim):
        return dim
    if arguments.get("step", 1) != 1:
        keep(dim, f"{at(node)} takes every {arguments['step']}th node")
    if size == 0:
        return "takes nothing"
    if is_kept(dim):
        return fresh(size, EXTENT)
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
    flow.number(node, "length", [(0, found)] if "length" in arguments else [])
    # An end beyond the last position means all positions, and adapts by itself.
    end = arguments.get("end")
    ends = isinstance(end, int) and end < size_of(dim)
    flow.number(node, "end", [(0, total(parts[: 2 if start else 1]))] if ends else [])
    return found


def part_written(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """slice_scatter: a copy in which `src` takes the place of a slice."""
    dims, written = flow.dims(arguments["self"]), flow.dims(arguments["src"])
    place = arguments["dim"] % len(dims)
    found = _part(flow, node, arguments, dims[place], size_of(written[place]))
    if isinstance(found, str):
        return found
    return _overwritten(flow, node, dims, [*written], [*dims[:place], found, *dims[place + 1 :]])


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


def selected_written(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims = flow.dims(arguments["self"])
    place = arguments["dim"] % len(dims)
    keep(dims[place], f"{at(node)} writes to one of its positions")
    return _overwritten(flow, node, dims, [*flow.dims(arguments["src"])], [*dims[:place], *dims[place + 1 :]])


def index(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Positions along some dimensions, taken from tensors of numbers; the other dimensions do not change."""
    return _indexed(flow, node, arguments, node.meta["val"].shape)


def index_written(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """index_put: `values` are broadcast to the positions that `index` selects."""
    numbers = [numbers.meta["val"] for numbers in arguments["indices"] if numbers is not None]
    if any(numbers.dtype == torch.bool for numbers in numbers):
        return "writes where a mask says"
    dims, shape = flow.dims(arguments["self"]), arguments["self"].meta["val"].shape
    taken = torch.empty(shape, device="meta")[
        tuple(slice(None) if number is None else number.meta["val"] for number in arguments["indices"])
    ]
    found = _indexed(flow, node, arguments, taken.shape)
    written = flow.dims(arguments["values"])
    return _overwritten(flow, node, dims, [*written], [*found[len(found) - len(written) :]])


def _indexed(flow: Flow, node: fx.Node, arguments: dict[str, Any], shape: Sequence[int]) -> tuple[Dim, ...]:
    dims, taken = flow.dims(arguments["self"]), arguments["indices"]
    places = [place for place, numbers in enumerate(taken) if numbers is not None]
    keep([dims[place] for place in places], f"{at(node)} takes some of its positions")
    count = len(shape) - (len(dims) - len(places))
    adjacent = places == list(range(places[0], places[-1] + 1))
    first = places[0] if adjacent else 0
    for numbers in taken:
        if numbers is not None:
            keep(flow.values[numbers], EXTENT)
    new = [fresh(size, EXTENT) for size in shape[first : first + count]]
    rest = [dim for place, dim in enumerate(dims) if place not in places]
    return (*rest[:first], *new, *rest[first:])


def index_select(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims = flow.dims(arguments["self"])
    place = arguments["dim"] % len(dims)
    keep((dims[place], flow.dims(arguments["index"])), f"{at(node)} takes some of its positions")
    return (*dims[:place], fresh(node.meta["val"].shape[place], EXTENT), *dims[place + 1 :])


def rows_written(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """index_add, index_copy, index_fill and index_reduce: at some positions along one dimension."""
    dims = flow.dims(arguments["self"])
    place = arguments["dim"] % len(dims)
    keep((dims[place], flow.dims(arguments["index"])), f"{at(node)} writes to some of its positions")
    if "source" not in arguments:
        return dims
    source = list(flow.dims(arguments["source"]))
    keep(source[place], EXTENT)
    source[place] = ()
    return _overwritten(flow, node, dims, source, list(dims))


def gather(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Along `dim`, any position is read; along the other dimensions, index and tensor are read at the same position."""
    return _in_step(flow, node, arguments, ["self", "index" if "index" in arguments else "indices"], "index")


def scatter(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """The inverse of `gather`: the values to write have at least the shape of the index."""
    return _in_step(flow, node, arguments, ["self", "index", "src"], "self")


def _in_step(
    flow: Flow, node: fx.Node, arguments: dict[str, Any], names: Sequence[str], result: str
) -> tuple[Dim, ...] | str:
    tensors = [arguments[name] for name in names if isinstance(arguments.get(name), fx.Node)]
    several = [flow.dims(tensor) for tensor in tensors]
    if arguments["dim"] is None or len({len(dims) for dims in several}) > 1:
        return "has no rule for tensors of different ranks"
    place = arguments["dim"] % len(several[0])
    keep([dims[place] for dims in several], f"{at(node)} takes some of its positions")
    found: list[Dim] = []
    for number, dims in enumerate(zip(*several, strict=True)):
        if number != place and len({size_of(dim) for dim in dims}) > 1:
            keep(dims, f"{at(node)} takes some of its positions")
        elif number != place:
            for dim in dims[1:]:
                flow.align(node, dims[0], dim)
        found.append(dims[0])
    if result == "self":
        return tuple(found)
    return tuple(
        dim if size_of(dim) == size and number != place else fresh(size, EXTENT)
        for number, (dim, size) in enumerate(zip(found, node.meta["val"].shape, strict=True))
    )


def diagonal(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    dims = flow.dims(arguments["self"])
    both = {arguments["dim1"] % len(dims), arguments["dim2"] % len(dims)}
    keep([dims[place] for place in both], f"{at(node)} takes some of its positions")
    rest = [dim for place, dim in enumerate(dims) if place not in both]
    return (*rest, fresh(node.meta["val"].shape[-1], EXTENT))


def one_hot(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    return (
        *flow.dims(arguments["self"]),
        fresh(node.meta["val"].shape[-1], f"{at(node)} counts values"),
    )


def _overwritten(
    flow: Flow, node: fx.Node, result: tuple[Dim, ...], written: Sequence[Dim], places: Sequence[Dim]
) -> tuple[Dim, ...]:
    """`result`, where values with the dimensions `written` were put at `places`; sizes of 1 are broadcast."""
    for one, other in zip(written[::-1], places[::-1], strict=False):
        flow.align(node, one or other, other)
    return result
