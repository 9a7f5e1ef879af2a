"""Residual branches: what a network computes between a fork of its stream and the sum that joins it again.

A branch whose last layer is zero adds nothing, so that the sum can be replaced by the stream. Only sums with an
unchanged stream are branches: a shortcut with a projection is a layer that remains.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from compress.graph.flow import arguments_of, at, is_mutable, layer_at, layer_of
from compress.graph.names import name_of
from compress.graph.rules import is_zero_preserving
from compress.graph.trace import Trace

_SAME = {"dropout", "contiguous", "clone", "detach", "alias", "view", "reshape", "to", "_to_copy"}
"""Operators behind which a stream is still the same."""

_WEIGHTED = {
    *("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("convolution", "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "native_layer_norm"),
    *("native_group_norm",),
}
"""Operators whose result is zero where their weight and bias are."""


@dataclass(frozen=True)
class Branch:
    """A residual branch that can be removed.

    name: the layer at its end. ends: the parameters that make it zero, as qualified names. join: the sum, a node of
    the trace by its name. stream: the place of the unchanged stream among its operands.
    """

    name: str
    ends: tuple[str, ...]
    join: str = field(compare=False)
    stream: int = field(compare=False)

    def is_zero(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether it adds nothing, whatever the input is."""
        return not any(bool(tensors[name].detach().count_nonzero()) for name in self.ends)


@dataclass(frozen=True)
class ResidualBranches:
    """`found` are the branches that can be removed, in the order of the forward pass.

    kept: the reason why another one cannot be removed, by the layer at its end.
    """

    found: tuple[Branch, ...]
    kept: Mapping[str, str]


def residual_branches(model: nn.Module, traced: Trace) -> ResidualBranches:
    """The residual branches of a network.

    Args:
        traced: a trace of the network.
    """
    search = _Search(model, traced.graph)
    for node in traced.graph.nodes:
        if _is_sum(node):
            search.visit(node)
    return ResidualBranches(tuple(search.found), search.kept)


def without(traced: Trace, removed: Iterable[Branch]) -> Trace:
    """The trace without some branches: with the stream in place of the sums that joined them."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(traced.graph, copied)
    last = next(node for node in traced.graph.nodes if node.op == "output")
    graph.output(output).meta = dict(last.meta)
    remove(graph, [(branch.join, branch.stream) for branch in removed])
    return replace(traced, graph=graph, inputs=tuple(copied[node] for node in traced.inputs))


def remove(graph: fx.Graph, joins: Iterable[tuple[str, int]]) -> None:
    """Take branches out of a graph.

    Args:
        joins: the sum that joins each, by the name of its node, and the place of the stream among its operands.
    """
    wanted = dict(joins)
    for node in list(graph.nodes):  # an inner branch before the one that it is in
        if node.name in wanted:
            stream, branch = _operands(node, wanted[node.name])
            _replace(node, stream, branch)


def operands_of_sum(graph: fx.Graph, name: str) -> Sequence[fx.Node]:
    """The operands of the sum of two tensors with this name; none if there is no such node."""
    return next((_operands(node, 0) for node in graph.nodes if node.name == name and _is_sum(node)), ())


# --- which branches there are ---


class _Search:
    """What is known of a graph while its sums are visited in order."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.found: list[Branch] = []
        self.kept: dict[str, str] = {}
        self._streams: dict[fx.Node, fx.Node] = {}  # of the sums that join a branch
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        own = {name: aliases for aliases in names.values() for name in aliases}
        uses: dict[str, int] = {}
        self._own: dict[fx.Node, str] = {}
        self._before: dict[fx.Node, int] = {}  # bits of a node and of everything that it follows from
        for number, node in enumerate(graph.nodes):
            self._before[node] = 1 << number
            for source in node.all_input_nodes:
                self._before[node] |= self._before[source]
            if node.op == "get_attr" and str(node.target) in own:
                self._own[node] = str(node.target)
                first = own[str(node.target)][0]
                uses[first] = uses.get(first, 0) + len(node.users)
        self._once = {name for name in own if uses.get(own[name][0]) == 1}
        self._bits = {node: 1 << number for number, node in enumerate(graph.nodes)}

    def visit(self, join: fx.Node) -> None:
        for place in (0, 1):
            stream, branch = _operands(join, place)
            if any(self._before[branch] & self._bits[origin] for origin in self._origins(stream)):
                self._note(join, place, stream, branch)
                return
        self._note_projections(join)

    def _note(self, join: fx.Node, place: int, stream: fx.Node, branch: fx.Node) -> None:
        if not self._has_weights(branch, stream):
            return  # such as a polynomial of the stream
        ends, same = self._ends(branch), stream.meta["val"].shape == join.meta["val"].shape
        if isinstance(ends, str) or not same or stream.meta["val"].dtype != join.meta["val"].dtype:
            self.kept[layer_at(branch)] = ends if isinstance(ends, str) else f"{at(join)} changes the stream's shape"
        else:
            self.found.append(Branch(layer_of(ends[0]), ends, join.name, place))
            self._streams[join] = stream

    def _note_projections(self, join: fx.Node) -> None:
        both = [self._ends(side) for side in _operands(join, 0)]
        one, other = (None if isinstance(ends, str) or not ends else layer_of(ends[0]) for ends in both)
        if one and other and any(node.op == "call_function" for node in self._common(join)):
            for name, shortcut in ((one, other), (other, one)):
                self.kept.setdefault(name, f"its shortcut is a projection, {shortcut!r}, and not the unchanged stream")

    def _common(self, join: fx.Node) -> Iterator[fx.Node]:
        one, other = _operands(join, 0)
        both = self._before[one] & self._before[other]
        return (node for node, bit in self._bits.items() if both & bit)

    def _origins(self, stream: fx.Node) -> Iterator[fx.Node]:
        """The stream, and what it was before earlier branches joined it."""
        node: fx.Node | None = stream
        while node is not None:
            if node.op != "get_attr":
                yield node
            if node in self._streams:
                node = self._streams[node]
            else:
                node = node.all_input_nodes[0] if name_of(node) in _SAME and node.all_input_nodes else None

    def _has_weights(self, branch: fx.Node, stream: fx.Node) -> bool:
        inside = self._before[branch] & ~self._before[stream]
        return any(inside & self._bits[node] for node in self._own)

    def _ends(self, node: fx.Node) -> tuple[str, ...] | str:
        """The parameters that make a value zero where they are zero; or the reason why none do."""
        name, given = name_of(node), arguments_of(node)
        if node in self._own:
            return self._of(node, [node])
        if name in _WEIGHTED:
            return self._of(node, [given.get("weight"), given.get("bias")])
        if name in ("addmm", "mm", "matmul") and (given.get("mat2", given.get("other")) in self._own):
            return self._of(node, [given.get("mat2", given.get("other")), given["self"] if name == "addmm" else None])
        if name == "mul":
            scales_first = sorted(node.all_input_nodes, key=lambda factor: factor not in self._own)
            found = [self._ends(factor) for factor in scales_first]
            return next((ends for ends in found if not isinstance(ends, str)), found[0])
        if name in ("add", "sub") and len(node.all_input_nodes) == 2:
            both = [self._ends(source) for source in node.all_input_nodes]
            wrong = next((ends for ends in both if isinstance(ends, str)), None)
            return wrong or tuple(dict.fromkeys(name for ends in both for name in ends))
        if is_zero_preserving(node) and node.all_input_nodes and isinstance(node.meta["val"], Tensor):
            return self._ends(node.all_input_nodes[0])
        return f"its end, {at(node)}, has no weight that makes it zero"

    def _of(self, node: fx.Node, own: Sequence[object]) -> tuple[str, ...] | str:
        tensors = [tensor for tensor in own if tensor is not None]
        names = [self._own.get(tensor) for tensor in tensors]  # type: ignore[call-overload]
        if not names or None in names:
            return f"its end, {at(node)}, has no weight of its own, or a computed one"
        if shared := [name for name in names if name not in self._once]:
            return f"the parameter {shared[0]!r} at its end is used elsewhere, too"
        return tuple(map(str, names))


def _is_sum(node: fx.Node) -> bool:
    """Of two tensors, one for one."""
    sides = [side for side in node.args[:2] if isinstance(side, fx.Node) and isinstance(side.meta.get("val"), Tensor)]
    return name_of(node) == "add" and len(sides) == 2 and arguments_of(node).get("alpha", 1) == 1


def _operands(join: fx.Node, stream: int) -> tuple[fx.Node, fx.Node]:
    """(the stream, the branch)"""
    one, other = join.args[stream], join.args[1 - stream]
    assert isinstance(one, fx.Node)
    assert isinstance(other, fx.Node)
    return one, other


# --- how they are taken out ---


def _replace(join: fx.Node, stream: fx.Node, branch: fx.Node) -> None:
    graph, inside = join.graph, _before([branch])
    if not _keeps_stream(join):
        with graph.inserting_before(join):
            own = graph.call_function(torch.ops.aten.clone.default, (stream,))
        own.meta = dict(join.meta)
        stream = own
    join.replace_all_uses_with(stream)
    graph.erase_node(join)
    memory = _Memory(graph)
    for node in reversed(list(graph.nodes)):
        alone = node in inside and node.op in ("call_function", "get_attr") and not memory.is_needed(node, inside)
        if alone or (node.op == "call_function" and not node.users and not node.is_impure()):
            graph.erase_node(node)


def _keeps_stream(join: fx.Node) -> bool:
    """Whether nothing writes into the sum, whose place the stream takes; a single operator in place is made another."""
    memory = _Memory(join.graph).of(join)
    writers = [user for one in memory for user in one.users if is_mutable(user) and user.args[0] is one]
    if not writers:
        return True
    first = next(iter(join.users))
    in_place, plain = (getattr(torch.ops.aten, f"{name_of(first)}{end}", None) for end in ("_", ""))
    if len(join.users) > 1 or in_place is None or plain is None or first.target is not in_place.default:
        return False
    first.target = plain.default
    return True


def _before(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes, and everything that they follow from."""
    found: set[fx.Node] = set()
    left = list(nodes)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += node.all_input_nodes
    return found


class _Memory:
    """Which values of a graph are, or may be, views of the same memory."""

    def __init__(self, graph: fx.Graph) -> None:
        self._first: dict[fx.Node, fx.Node] = {}
        for node in graph.nodes:
            source = node.args[0] if node.args else None
            operator = node.target
            is_view = (
                isinstance(operator, torch._ops.OpOverload)
                and bool(operator._schema.arguments[:1])
                and (operator._schema.arguments[0].alias_info is not None)
            )
            is_item = name_of(node) == "getitem"
            same = isinstance(source, fx.Node) and (is_view or is_item or name_of(node) in _SAME)
            self._first[node] = self._first[source] if same else node  # type: ignore[index]

    @cached_property
    def _groups(self) -> dict[fx.Node, list[fx.Node]]:
        found: dict[fx.Node, list[fx.Node]] = {}
        for node, first in self._first.items():
            found.setdefault(first, []).append(node)
        return found

    def of(self, node: fx.Node) -> list[fx.Node]:
        return self._groups[self._first[node]]

    def is_needed(self, node: fx.Node, inside: set[fx.Node]) -> bool:
        """Whether a node has users, or writes into memory that something outside of the branch reads."""
        if node.users:
            return True
        return is_mutable(node) and any(one not in inside or one.users for one in self.of(node) if one is not node)
