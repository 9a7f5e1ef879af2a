"""`Flow`: one walk through a traced network, which finds the dimensions of every value and the use of its tensors."""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.errors import InputError
from compress.graph.dimensions import Dim, Factor, align, fresh, is_kept, keep, leaves, size_of
from compress.graph.rebuild import Rebuild

Value = tuple[Dim, ...] | list[Any] | None  # a tensor's dimensions; a list for several tensors; None for a number

INPUT = "it is a size of the network's input"
OUTPUT = "it is the network's output"
EXTENT = "it is a length that does not count nodes, such as a picture's height"
TABLE = "it is the number of entries of a table"
GATES = "it counts the gates of a recurrent layer"
BORDERS = "regroups dimensions whose borders do not meet"
UNUSED = "the forward pass does not use it"
BY_DESIGN = (INPUT, OUTPUT, EXTENT, TABLE, GATES)


@dataclass(frozen=True)
class Number:
    """A size that the network stores as a number, and that must change when a width shrinks.

    attribute: entry `index` of `name` (module and attribute, "decoder.3.unflattened_size"; 0 for a plain number).
    number: entry `index` of an operator's argument in the trace ("view_3.size").
    mean: the number of nodes that the operator `name` of the trace takes a mean over.
    norm: the same for the module `name`, whose code calls that operator. `index` is 0 if the nodes are the last
        dimension of its input, otherwise it is the dimension.
    weights: dimension `index` of the parameter `name`, over which the layer takes means.
    """

    kind: str
    name: str
    index: int


@dataclass(frozen=True)
class Shift:
    """The layer `layer`, with one bias for each position, adds the same constant at every dead node of `factor`.

    place: the dimension of its output that contains the nodes, beside those of the batch and the positions.
    """

    layer: str
    place: int
    factor: Factor


class Flow:
    """The state of the walk.

    reads, writes: (tensor, dimension) whose nodes a layer uses, or computes.
    follows: (tensor, dimension) of a parameter that cannot be zero at a node; another parameter makes the node zero.
    summed: dimensions over which a computation sums without weights, as attention does.
    origins: the parameter for each value that is computed from one, entry by entry (see `weights`).
    products: the dimensions of each product without weights, such as attention's, by the name of the operator's node.
    shifts: constants that are added to all nodes, by the operator that adds them (see `shifts`).
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.values: dict[fx.Node, Value] = {}
        self.tensors: dict[fx.Node, str] = {}
        state = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
        self.names = _names(state)
        self.reads: set[tuple[str, int]] = set()
        self.writes: set[tuple[str, int]] = set()
        self.follows: set[tuple[str, int]] = set()
        self.summed: list[Dim] = []
        self.shifts: dict[fx.Node, Shift] = {}
        self.origins: dict[fx.Node, fx.Node] = {}
        self._zero: dict[fx.Node, Dim] = {}
        self._memory: dict[fx.Node, fx.Node] = {}  # the value that another one is, or may be, a view of
        self.numbers: dict[Number, list[Dim]] = defaultdict(list)
        self.positions: dict[str, int] = defaultdict(int)
        self.products: dict[str, list[Dim]] = {}
        self.kept: dict[str, str] = {}
        self.parameters = dict(model.named_parameters(remove_duplicate=False))
        self._model = model
        self._used = {str(node.target) for node in graph.nodes if node.op == "get_attr" and node.users}
        self._shared: dict[str, Value] = {}
        self._shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def visit(self, node: fx.Node, rule: "Rule") -> None:
        if node.op == "placeholder":
            self.values[node] = fresh_value(node.meta["val"], INPUT)
        elif node.op == "get_attr":
            self.values[node] = self._own(node)
        elif node.op == "call_function" and not node.users and not is_mutable(node):
            self.values[node] = fresh_value(node.meta.get("val"), "nothing uses it")  # such as `weight[0].numel()`
        elif node.op == "call_function" and not isinstance(node.target, Rebuild):
            result = rule(self, node, arguments_of(node))
            if not isinstance(result, str) and not _fits(result, node.meta.get("val")):
                result = "gives sizes that its rule does not know"
            self.values[node] = self._opaque(node, result) if isinstance(result, str) else result
            self._note_memory(node)
        else:
            self.values[node] = None
            for source in node.all_input_nodes:
                keep(self.values[source], OUTPUT)

    def _note_memory(self, node: fx.Node) -> None:
        """The value that `node` is, or may be, a view of."""
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and (
            node.target is operator.getitem
            or (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.arguments[0].alias_info)
        ):
            self._memory[node] = self._memory.get(source, source)

    def dims(self, node: fx.Node) -> tuple[Dim, ...]:
        """Dimensions of a node whose value is one tensor."""
        value = self.values[node]
        assert isinstance(value, tuple)
        return value

    def is_parameter(self, node: fx.Node) -> bool:
        return self.tensors.get(node) in self.parameters

    def holds_zeros(self, node: fx.Node, dim: Dim) -> bool:
        """Whether `node` is a weight that is zero at the nodes `dim` wherever its parameter is."""
        return self.is_parameter(node) and self.zeros(node).issuperset(
            factor for factor in leaves(dim) if not factor.reason
        )

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The dimensions of one of the network's own tensors."""
        return self._shapes[name]

    def align(self, node: fx.Node, one: Dim, other: Dim) -> None:
        """Raise InputError if both have nodes, in different numbers."""
        if one and other and size_of(one) != size_of(other):
            raise InputError(
                f"The network does not run on the example: {at(node)} meets {size_of(one)} nodes where it takes "
                f"{size_of(other)}."
            )
        align(one, other, f"{at(node)} uses widths as one that consist of different parts")

    def contract(self, dim: Dim, node: fx.Node, sources: Iterable[fx.Node], does: str = "sums") -> None:
        """`node` sums over `dim` without weights, which is exact if one factor of a dead node's summand is zero."""
        zero = set[Factor]().union(*map(self.zeros, sources))
        if all(factor.reason or factor in zero for factor in leaves(dim)):
            self.summed.append(dim)
        else:
            keep(dim, f"{at(node)} {does} over nodes that need not be zero when their weights are")

    def vanishes(self, node: fx.Node, dims: Iterable[Factor]) -> None:
        """Record that `node` is zero along `dims` at nodes where all of the network's own tensors are zero."""
        self._zero[node] = tuple(dims)

    def write_through(self, node: fx.Node) -> None:
        """If an in-place operator writes nonzero values, other views of the same memory need not vanish either."""
        if not is_mutable(node):
            return
        lost = self.factors(node) - self.zeros(node)
        operator: Any = node.target
        for argument, given in zip(operator._schema.arguments, node.args, strict=False):
            if argument.is_write and isinstance(given, fx.Node):
                memory = self._memory.get(given, given)
                for other in [other for other in self._zero if self._memory.get(other, other) is memory]:
                    self.vanishes(other, self.zeros(other) - lost)

    def zeros(self, node: fx.Node) -> set[Factor]:
        """The factors along which the value of `node` vanishes."""
        return set(leaves(self._zero.get(node, ())))

    def factors(self, node: fx.Node) -> set[Factor]:
        """The factors of all dimensions of `node`, except those that keep their size."""
        return {factor for factor in leaves(_flat(self.values[node])) if not factor.reason}

    def module_at(self, node: fx.Node) -> nn.Module:
        return self._model.get_submodule(layer_at(node))

    def number(self, node: fx.Node, argument: str, dims: Iterable[tuple[int, Dim]]) -> None:
        """An argument of `node` contains the sizes of `dims` as numbers; sizes of kept dimensions never change."""
        for index, dim in dims:
            if not is_kept(dim):
                self.numbers[Number("number", f"{node.name}.{argument}", index)].append(dim)

    def attribute(
        self, node: fx.Node, kinds: tuple[type[nn.Module], ...], name: str, dims: Iterable[tuple[int, Dim]]
    ) -> None:
        """As `number`, for the attribute `name` of a module of these classes, if its code creates `node`."""
        if isinstance(self.module_at(node), kinds):
            for index, dim in dims:
                self.numbers[Number("attribute", f"{layer_at(node)}.{name}", index)].append(dim)

    def _own(self, node: fx.Node) -> Value:
        names = self.names.get(str(node.target), ())
        if not names:
            return fresh_value(node.meta["val"], f"{node.target!r} is not part of the network's state_dict")
        self.tensors[node] = names[0]
        value = self._shared.setdefault(names[0], fresh_value(node.meta["val"]))
        if names[0] in self.parameters:
            self.vanishes(node, _flat(value))
        if self._used.isdisjoint(names):
            self._hold(value, UNUSED, names)
        elif len(names) > 1 and len({self._shapes[name] for name in names}) > 1:
            self._hold(value, f"it shares its memory with {', '.join(map(repr, names))} of another shape", names)
        return value

    def _opaque(self, node: fx.Node, why: str) -> Value:
        reason = f"{at(node)} {why}"
        for source in node.all_input_nodes:
            self._hold(self.values[source], reason, [self.tensors[source]] if source in self.tensors else [])
        return fresh_value(node.meta.get("val"), reason)

    def _hold(self, value: Value, reason: str, names: Iterable[str]) -> None:
        """Keep the size of `value`, and record the reason for the layers of the tensors `names`."""
        keep(value, reason)
        for name in names:
            if name in self.parameters:
                self.kept.setdefault(layer_of(name), reason)


# Dimensions of an operator's result, or the reason why they cannot be followed.
Rule = Callable[[Flow, fx.Node, dict[str, Any]], Value | str]


def layer_of(tensor: str) -> str:
    """Name of the layer that a qualified parameter name belongs to; a parameter outside any layer counts as a layer."""
    owner, parametrized, _ = tensor.partition(".parametrizations.")
    if parametrized:
        return owner
    path, _, leaf = tensor.rpartition(".")
    return path if path and ("weight" in leaf or "bias" in leaf) else tensor


def owner_of(tensor: str) -> str:
    """Qualified name of the module whose code uses a parameter of this name."""
    owner, parametrized, _ = tensor.partition(".parametrizations.")
    return owner if parametrized else tensor.rpartition(".")[0]


def layer_at(node: fx.Node) -> str:
    """Qualified name of the innermost module whose code created `node`; "" for the network itself."""
    return str(node.meta["layer"])


def at(node: fx.Node) -> str:
    return f"{node.target} in {layer_at(node) or 'the network'!r}"


def is_mutable(node: fx.Node) -> bool:
    """Whether the operator writes into one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def places_of(wanted: int | Sequence[int] | None, rank: int) -> list[int]:
    """The dimensions that an argument names; all of them for None and for an empty list."""
    if wanted is None or wanted == []:
        return list(range(rank))
    several: Iterable[int] = [wanted] if isinstance(wanted, int) else wanted
    return [place % rank for place in several] if rank else []


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Arguments of an operator by name, defaults included."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {}
    schema = node.target._schema.arguments
    defaults = {argument.name: argument.default_value for argument in schema}
    return defaults | dict(zip(defaults, node.args, strict=False)) | node.kwargs


def fresh_value(example: object, reason: str | None = None) -> Value:
    """Dimensions for the traced value `example`; only their sizes are known."""
    if isinstance(example, Tensor):
        return tuple(fresh(size, reason) for size in example.shape)
    if isinstance(example, tuple | list):
        return [fresh_value(item, reason) for item in example]
    return None


def _fits(value: Value, example: object) -> bool:
    """Whether dimensions have the sizes of the traced value `example`."""
    if isinstance(value, list):
        if not isinstance(example, tuple | list) or len(example) != len(value):
            return False
        return all(_fits(mine, its) for mine, its in zip(value, example, strict=True))
    if value is None or not isinstance(example, Tensor):
        return value is None
    return [size_of(dim) for dim in value] == list(example.shape)


def _flat(value: Iterable[Any] | None) -> Iterator[Factor]:
    """All factors in `value`, however nested."""
    for item in value or ():
        if isinstance(item, Factor):
            yield item
        else:
            yield from _flat(item)


def _names(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """For every tensor of a state_dict, all names of tensors at its address; more than one if it is tied."""
    names: dict[object, list[str]] = defaultdict(list)
    begins = {name: (tensor.untyped_storage()._cdata, tensor.storage_offset()) for name, tensor in tensors.items()}
    for name, begin in begins.items():
        names[begin].append(name)
    return {name: tuple(names[begin]) for name, begin in begins.items()}
