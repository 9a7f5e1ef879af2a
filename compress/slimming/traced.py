"""A network as its traced graph, with its sizes as numbers that can be changed.

The forward code of a class may have sizes in it that no attribute can change, such as `C // num_heads` in an
attention. The traced graph has them too, but as arguments of its operators. A module made of it has the names and
tensors of the original; it always computes as in evaluation mode (without dropout and batch statistics).
"""

import copy
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compress.graph.flow import arguments_of
from compress.graph.names import name_of
from compress.graph.positions import dim_of_pieces
from compress.graph.trace import Trace
from compress.slimming.slim_graph import SlimGraph, slim_graph

_VIEWS = {"view": "size", "reshape": "shape", "_unsafe_view": "size", "expand": "size"}
_PIECES = ("chunk", "split", "tensor_split", "hsplit", "vsplit", "dsplit")
_ATTENTION = ("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu")


def traced_module(traced: Trace, tensors: Mapping[str, Tensor]) -> SlimGraph:
    """The trace of a network as a module on its `tensors`, in which every size that may change is a plain number."""
    graph = copy.deepcopy(traced.graph)
    for node in graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            _loosen(node, tuple(traced.sizes.values()))
    graph.eliminate_dead_code()
    return slim_graph({**tensors, **traced.constants}, graph, traced.sizes).eval()


def _loosen(node: fx.Node, varying: Sequence[int]) -> None:
    """Replace sizes that may change by plain numbers; the operator computes varying sizes."""
    name, arguments = name_of(node), arguments_of(node)
    if name.removeprefix("unsafe_") in _PIECES:
        place, source = dim_of_pieces(node), node.args[0]
        sizes = [part.shape[place] for part in node.meta["val"]]
        if not _varies(source, place, varying):
            node.target, node.args, node.kwargs = torch.ops.aten.split_with_sizes.default, (source, sizes, place), {}
    elif name in _ATTENTION and arguments["scale"] is None:
        size = arguments["query"].meta["val"].shape[-1]
        node.kwargs = {**node.kwargs, "scale": 1 / math.sqrt(size)}
    elif name == "slice" and arguments["start"] is not None and isinstance(arguments["start"], int):
        size = arguments["self"].meta["val"].shape[arguments["dim"]]
        ends = [arguments["start"], arguments["end"]]
        fixed = not _varies(arguments["self"], arguments["dim"], varying)
        if fixed and any(isinstance(end, int) and end < 0 for end in ends):
            for key, end in zip(("start", "end"), ends, strict=True):
                set_argument(node, key, end + size if isinstance(end, int) and end < 0 else end)
    elif name in _VIEWS:
        _leave_open(node, arguments, varying)


def _varies(node: Any, dim: int, varying: Sequence[int]) -> bool:
    """Whether a dimension of a node's result follows from a size that varies."""
    shape = node.meta["val"].shape
    return dim % len(shape) in node.meta.get("varying", ()) or not all(shape[dim] % one for one in varying)


def _leave_open(node: fx.Node, arguments: Mapping[str, Any], varying: Sequence[int]) -> None:
    """Let a view compute the size that is a multiple of a varying size, such as batch * heads, or else the batch."""
    sizes, source = arguments[_VIEWS[name_of(node)]], arguments["self"].meta["val"].shape
    source = (1,) * (len(sizes) - len(source)) + tuple(source)
    computed = [place for place, size in enumerate(sizes) if not isinstance(size, int)]
    multiples = [place for place in computed if _is_multiple(node.meta["val"].shape[place], varying)]
    open_places = computed if len(computed) == 1 else multiples
    if len(open_places) != 1 or -1 in sizes:
        return
    place = open_places[0]
    if name_of(node) != "expand" or source[place] == node.meta["val"].shape[place]:
        set_argument(node, _VIEWS[name_of(node)], [-1 if at == place else size for at, size in enumerate(sizes)])


def _is_multiple(size: int, varying: Sequence[int]) -> bool:
    for one in varying:
        while size % one == 0:
            size //= one
    return size != 1


def numbers_of(module: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    """All sizes of the graph by name ("view_3.size"); -1 if a size is not a number, or the operator computes it."""
    found: dict[str, tuple[int, ...]] = {}
    for node in module.graph.nodes:
        for name, value in arguments_of(node).items():
            sizes = [_number(entry) for entry in (value if isinstance(value, list | tuple) else [value])]
            if any(size is not None for size in sizes):
                found[f"{node.name}.{name}"] = tuple(-1 if size is None else size for size in sizes)
    return found


def _number(entry: object) -> int | None:
    """A size; for a product with a varying size, its value in the trace."""
    size = entry.meta.get("val") if isinstance(entry, fx.Node) else entry
    return size if type(size) is int else None


def set_numbers(module: fx.GraphModule, changes: Iterable[tuple[str, int, int]]) -> None:
    """Change the number `name` ("view_3.size"), at an index if it has several entries."""
    nodes = {node.name: node for node in module.graph.nodes}
    for name, index, value in changes:
        node_name, _, argument = name.rpartition(".")
        old = arguments_of(nodes[node_name])[argument]
        several = isinstance(old, list | tuple)
        entry = old[index] if several else old
        if isinstance(entry, fx.Node):
            with module.graph.inserting_before(nodes[node_name]):
                value = _scaled(entry, entry.meta["val"], value)
        set_argument(nodes[node_name], argument, [*old[:index], value, *old[index + 1 :]] if several else value)


def _scaled(product: Any, before: int, after: int) -> Any:
    """A product of varying sizes and a number, such as batch * heads, whose number shrinks from `before` to `after`."""
    if isinstance(product, int):
        return product * after // before
    one, other = product.args
    by = product.target is operator.floordiv
    args = (_scaled(one, before, after), other) if by else (one, _scaled(other, before, after))
    made = product.graph.node_copy(product)
    made.args = args
    made.meta["val"] = after * product.meta["val"] // before
    return made


def set_argument(node: fx.Node, name: str, value: Any) -> None:
    position = list(arguments_of(node)).index(name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)
