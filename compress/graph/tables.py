"""`table_rows`: which inputs of a network are numbers of rows of a table, as token ids are, and of how many rows."""

import operator
from typing import Any

import torch
from torch import fx

from compress.graph.dimensions import BATCH
from compress.graph.trace import Trace

_ATEN = torch.ops.aten

# Operators whose result has the values of their input in another arrangement.
_SAME_VALUES = {
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "clone", "contiguous", "_to_copy", "to", "alias"),
    *("detach", "lift_fresh", "lift_fresh_copy", "slice", "select", "narrow", "unsqueeze", "squeeze", "transpose"),
    *("permute", "t", "expand", "repeat", "repeat_interleave", "flip", "roll", "split", "split_with_sizes", "chunk"),
    *("unbind", "tensor_split", "long", "int", "index_select", "stack", "cat", "view_as", "reshape_as", "expand_as"),
    *("movedim", "swapaxes", "tile", "type_as", "unfold", "getitem", "ravel", "squeeze_", "unsqueeze_", "numpy_T"),
}


def table_rows(trace: Trace) -> tuple[int | None, ...]:
    """For each tensor of the inputs, in order, the rows of the smallest table that it looks up; None for no table."""
    return tuple(_rows(node, 0) for node in trace.inputs)


def _rows(ids: fx.Node, shift: int, seen: frozenset[fx.Node] = frozenset()) -> int | None:
    """Rows of the smallest table that `ids` + `shift` looks up."""
    found: list[int] = []
    for user in ids.users:
        if user in seen:
            continue
        name, arguments = _name(user), user.args
        rows = _looked_up(name, arguments, ids)
        if rows is not None:
            found.append(rows - shift)
        following = (ids, *seen)
        if name in _SAME_VALUES:
            rows = _rows(user, shift, frozenset(following))
        elif name in ("add", "sub", "add_", "sub_") and len(arguments) > 1 and type(arguments[1]) is int:
            more = arguments[1] if name.startswith("add") else -arguments[1]
            rows = _rows(user, shift + more, frozenset(following))
        else:
            continue
        if rows is not None:
            found.append(rows)
    return max(1, min(found)) if found else None


def _looked_up(name: str, arguments: Any, ids: fx.Node) -> int | None:
    """Rows of the table in which this operator looks up `ids`, if it does."""
    match name:
        case "embedding" | "embedding_bag" | "_embedding_bag" | "_embedding_bag_forward_only" if arguments[1] is ids:
            return _size(arguments[0], 0)
        case "index" if ids in arguments[1]:
            return _size(arguments[0], arguments[1].index(ids))
        case "index_select" | "gather" if len(arguments) > 2 and arguments[2] is ids:
            return _size(arguments[0], arguments[1])
        case "one_hot" if len(arguments) > 1 and arguments[0] is ids and arguments[1] > 0:
            return int(arguments[1])
    return None


def _size(table: fx.Node, dim: int) -> int | None:
    value = table.meta.get("val")
    size = int(value.shape[dim]) if isinstance(value, torch.Tensor) and value.ndim else 0
    return size if size % BATCH else None  # the samples of the batch are not a table


def _name(node: fx.Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    schema = getattr(node.target, "_schema", None)
    return schema.name.rpartition("::")[2] if schema is not None else ""
