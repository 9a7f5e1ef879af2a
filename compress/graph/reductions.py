"""Rules of the operators that combine the positions of a dimension, and remove it or keep its size."""

from collections.abc import Callable
from typing import Any

from torch import fx

from compress.graph.dimensions import Dim, fresh, is_kept, keep
from compress.graph.flow import EXTENT, Flow, Rule, Value, at, places_of
from compress.graph.shapes import elementwise


def summed(flow: Flow, node: fx.Node, dim: Dim, source: fx.Node) -> None:
    flow.contract(dim, node, [source])


def combined(flow: Flow, node: fx.Node, dim: Dim, source: fx.Node) -> None:
    keep(dim, f"{at(node)} combines all of its nodes")


def reduction(over: Callable[[Flow, fx.Node, Dim, fx.Node], None]) -> Rule:
    """Dimensions that disappear, or become 1. `over` decides whether that is exact without dead nodes."""

    def rule(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
        source = node.all_input_nodes[0]
        dims, results = flow.dims(source), node.meta["val"]
        places = places_of(arguments.get("dim"), len(dims))
        if joined := tuple(factor for place in places if not is_kept(dims[place]) for factor in dims[place]):
            over(flow, node, joined, source)
        kept = [() if index in places else dim for index, dim in enumerate(dims)]
        left = [dim for index, dim in enumerate(dims) if index not in places]
        several = isinstance(results, tuple | list)
        shape = results[0].shape if several else results.shape
        result = tuple(kept if len(shape) == len(dims) else left)
        return [result] * len(results) if several else result

    return rule


def greatest(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """max and min: of one tensor over its nodes, or of two tensors node by node."""
    return (elementwise if "other" in arguments else reduction(combined))(flow, node, arguments)


def norm(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """The norm of a vector: zeros add nothing, unless the norm is the smallest entry."""
    order = arguments.get("ord", arguments.get("p"))
    dims = flow.dims(node.all_input_nodes[0])
    matrix = "ord" in arguments and order is not None and len(places_of(arguments["dim"], len(dims))) == 2
    vector = node.target._schema.name == "aten::linalg_vector_norm"  # type: ignore[union-attr]
    exact = order is None or (isinstance(order, int | float) and order >= 0)
    return reduction(summed if exact and (vector or not matrix) else combined)(flow, node, arguments)


def along(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Operators that mix the positions of some dimensions and keep all sizes: softmax, cumsum, roll, flip."""
    dims, results = flow.dims(node.all_input_nodes[0]), node.meta["val"]
    for place in places_of(arguments["dims"] if "dims" in arguments else arguments.get("dim", 0), len(dims)):
        keep(dims[place], f"{at(node)} combines all of its nodes")
    return [dims] * len(results) if isinstance(results, tuple | list) else dims


def chosen(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """topk, and the differences of neighbours: as `along`, with another number of positions."""
    dims, results = list(flow.dims(node.all_input_nodes[0])), node.meta["val"]
    place = arguments["dim"] % len(dims)
    several = isinstance(results, tuple | list)
    for source in node.all_input_nodes:
        keep(flow.dims(source)[place], f"{at(node)} combines all of its nodes")
        for number, dim in enumerate(flow.dims(source)):
            if number != place:
                flow.align(node, dim, dims[number])
    dims[place] = fresh((results[0] if several else results).shape[place], EXTENT)
    return [tuple(dims)] * len(results) if several else tuple(dims)


def triangle(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """tril and triu: which entries of a matrix are zero depends on their positions."""
    dims = flow.dims(arguments["self"])
    keep(dims[-2:], f"{at(node)} treats positions differently")
    return dims


def turned(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """rot90: an odd number of turns exchanges the two dimensions."""
    dims = list(flow.dims(arguments["self"]))
    one, other = places_of(arguments["dims"], len(dims))
    keep((dims[one], dims[other]), f"{at(node)} reverses its positions")
    if arguments["k"] % 2:
        dims[one], dims[other] = dims[other], dims[one]
    return tuple(dims)


def matrices(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Linear algebra of whole matrices, the last two dimensions, which keep their sizes; those before them pass."""
    results = node.meta["val"]
    several = results if isinstance(results, tuple | list) else [results]
    first = flow.dims(node.all_input_nodes[0])
    for source in node.all_input_nodes:
        dims = flow.dims(source)
        keep(dims[-2:], f"{at(node)} treats it as a matrix of its own")
        for one, other in zip(dims[-3::-1], first[-3::-1], strict=False):
            flow.align(node, one or other, other or one)
    before = first[:-2]
    found = [(*before, *(fresh(size, EXTENT) for size in result.shape[len(before) :])) for result in several]
    return found if isinstance(results, tuple | list) else found[0]


def crossed(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """The cross product, along a dimension of 3."""
    one, other = (flow.dims(source) for source in (node.all_input_nodes * 2)[:2])
    if arguments["dim"] is None or len(one) != len(other):
        return "has no rule"
    keep((one[arguments["dim"]], other[arguments["dim"]]), f"{at(node)} combines all of its nodes")
    for mine, its in zip(one, other, strict=True):
        flow.align(node, mine or its, its or mine)
    return tuple(mine or its for mine, its in zip(one, other, strict=True))
