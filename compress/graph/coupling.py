"""Couplings: tensor dimensions that must shrink together, derived from the network itself.

The network is traced once (`trace`), and the sizes of its tensors are followed through the graph
(`dimensions` is their algebra, `rules` says how each operator's result follows from its operands). A factor that has
not been split at the end is a width, and every (tensor, dimension) that contains it shrinks with it. Layers touched by
an operator without a rule keep their width, and the reason names the operator: nothing is guessed.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from compress.dynamic import Dynamic
from compress.errors import TargetError, UnsupportedModelError
from compress.graph.dimensions import BATCH, Dim, Factor, keep, length, places, repeated, whole
from compress.graph.flow import BY_DESIGN, Flow, Number, Shift, layer_of
from compress.graph.rules import note_zeros, rule_of
from compress.graph.shifts import checked
from compress.graph.trace import Trace, trace
from compress.wording import did_you_mean

Role = Literal["writes", "reads", "follows"]


@dataclass(frozen=True)
class Member:
    """One dimension of one tensor that contains the nodes of a coupling.

    writes: row, bias or scale of a layer that computes the nodes; reads: column of a layer that uses them; follows:
    other values of each node, such as its running mean. Node j is at offset + o * step + j * inner + i along
    `dim`, for o < outer and i < inner; `size` is the coupling's number of nodes, and `step` size * inner if it is 0.
    """

    tensor: str
    dim: int
    role: Role
    size: int
    outer: int = 1
    inner: int = 1
    offset: int = 0
    step: int = 0

    def index(self, nodes: Tensor) -> Tensor:
        """Positions along `dim` that belong to `nodes` [n] (int64); [outer * n * inner], ascending if they are."""
        outer = torch.arange(self.outer, device=nodes.device)[:, None, None] * (self.step or self.size * self.inner)
        inner = torch.arange(self.inner, device=nodes.device)
        return (self.offset + outer + nodes[:, None] * self.inner + inner).flatten()

    def split(self, values: Tensor) -> Tensor:
        """A view of `values` (of the tensor's shape) whose `dim` is [outer, size, inner], without what is between."""
        return self._split(values, self.dim)

    def per_node(self, values: Tensor) -> Tensor:
        """The sum over all positions of each node, of `values` [length of `dim`]; [size]."""
        return self._split(values, 0).sum(dim=(0, 2))

    def matrix(self, values: Tensor) -> Tensor:
        """Each node's entries of `values` (of the tensor's shape): [size, entries], a view where that is possible."""
        outer, nodes, inner = range(self.dim, self.dim + 3)
        return self.split(values).movedim((nodes, outer, inner), (0, 1, 2)).flatten(1)

    def _split(self, values: Tensor, dim: int) -> Tensor:
        length, step = self.size * self.inner, self.step or self.size * self.inner
        own = values.narrow(dim, self.offset, (self.outer - 1) * step + length)
        stretches = own.unfold(dim, length, step).movedim(-1, dim + 1)
        return torch.unflatten(stretches, dim + 1, (self.size, self.inner))


@dataclass(frozen=True)
class Coupling:
    """Nodes that are kept or cut together: node j of every member, for j in [0, size).

    summed: some computation sums over the nodes without weights, as attention does over the size of a head. Such nodes
    can only be cut if everything that writes them is zero too.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    summed: bool = False
    factor: Factor = field(default_factory=lambda: Factor(0), compare=False, repr=False)

    def masks(self, model: nn.Module, keep: Tensor) -> dict[str, Tensor]:
        """Masks that prune both sides of nodes: their rows and biases, and their columns.

        Args:
            keep: bool [size], False for the nodes to prune.

        Returns:
            Bool masks of the parameters' shapes by qualified name, True = keep.
        """
        return masks_of(model, {self: keep})


@dataclass(frozen=True)
class Couplings:
    """`found` are the couplings that can shrink. `kept` maps a layer's name to the reason why it keeps its width.

    stuck: the known parts of widths, with reasons, that are kept because softprune does not support the network there,
        and not because they are its input, its output or the size of an image.
    names: all names of every tensor of the network; more than one if it is tied.
    shapes: shapes of the network's parameters; a shared one is listed under one of its names.
    shifts: constants that layers add to all nodes, including dead ones; slimming subtracts them from the biases.
    positions: how often each entry of a weight is used for one sample, which gives the multiply-adds.
    products: the dimensions of each product without weights, by the name of its node; the product of their sizes is the
        number of its multiply-adds for a batch.
    """

    found: tuple[Coupling, ...]
    kept: Mapping[str, str]
    stuck: tuple[tuple[Coupling, str], ...]
    names: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    positions: Mapping[str, int]
    products: Mapping[str, Sequence[Dim]]
    shifts: tuple[Shift, ...] = field(repr=False)
    numbers: Mapping[Number, tuple[Dim, ...]] = field(repr=False)
    trace: Trace = field(repr=False)

    def of(self, module: str) -> Coupling:
        """The coupling whose nodes the layer `module` (its qualified name) computes; the outermost of several.

        Raises:
            UnsupportedModelError: its width is kept; the message has the reason.
            TargetError: no such layer, or one that computes no nodes.
        """
        if module in self._by_layer:
            return self._by_layer[module]
        if module in self.kept:
            raise UnsupportedModelError(f"The layer {module!r} must keep its width: {self.kept[module]}.")
        names = [coupling.name for coupling in self.found]
        raise TargetError(
            f"There is no layer {module!r} with nodes of its own; layers with prunable nodes: "
            f"{', '.join(names) or 'none'}{did_you_mean(module, names)}"
        )

    def matching(self, patterns: Iterable[str]) -> tuple[Coupling, ...]:
        """The couplings of all prunable layers whose qualified names match a shell pattern; each coupling once.

        Raises:
            TargetError, UnsupportedModelError: as `of`, for a name without wildcards; or the pattern matches nothing.
        """
        layers = [
            layer
            for coupling in self.found
            for member in coupling.members
            if member.role == "writes"
            for layer in sorted(self._layers(member.tensor))
        ]
        wanted: list[str] = []
        for pattern in patterns:
            matches = [layer for layer in layers if fnmatchcase(layer, pattern)] or [pattern]
            wanted += [pattern] if pattern in self.kept else matches
        return tuple(dict.fromkeys(self.of(layer) for layer in wanted))

    def resized(self, left: Mapping[Coupling, int], kind: str) -> Iterator[tuple[Number, int, int]]:
        """The numbers of one kind that change when couplings have only `left` nodes: (number, before, after).

        A number that represents several sizes, such as an attribute of a module that is used twice, is listed with each
        of them.
        """
        sizes = {coupling.factor: count for coupling, count in left.items()}
        for number, dims in self.numbers.items():
            if number.kind == kind:
                changes = dict.fromkeys((length(dim, {}), length(dim, sizes)) for dim in dims)
                yield from ((number, *change) for change in changes if change[0] != change[1])

    def multiply_adds(self, product: str, left: Mapping[Coupling, int]) -> int:
        """Of one of `products`, for a sample, when couplings have only `left` nodes."""
        own = {coupling: coupling.factor for coupling in self.found}  # equal ones of a checkpoint have no factors
        sizes = {own[coupling]: count for coupling, count in left.items() if coupling in own}
        return max(1, math.prod(length(dim, sizes) for dim in self.products[product]) // BATCH)

    def has(self, module: str) -> bool:
        """Whether the layer `module` computes nodes, prunable or not."""
        return module in self.kept or module in self._by_layer

    def layers(self, coupling: Coupling) -> set[str]:
        """The names of all layers that compute the nodes of a coupling."""
        writers = [member.tensor for member in coupling.members if member.role == "writes"]
        return {layer for tensor in writers for layer in self._layers(tensor)}

    @cached_property
    def _by_layer(self) -> dict[str, Coupling]:
        """The outermost coupling of each layer."""
        outermost = reversed(self.found)  # the first one is set last
        return {layer: coupling for coupling in outermost for layer in self.layers(coupling)}

    def _layers(self, tensor: str) -> set[str]:
        return {layer_of(name) for name in self.names[tensor]}


def masks_of(model: nn.Module, keep: Mapping[Coupling, Tensor]) -> dict[str, Tensor]:
    """Bool masks of all parameters that hold the nodes of `keep`, by name, True = keep: norms' scale and shift too.

    Args:
        keep: bool [size] of each coupling, False for the nodes to prune.
    """
    found: dict[str, Tensor] = {}
    for coupling, nodes in keep.items():
        pruned = (~nodes).nonzero().flatten()
        for member in coupling.members:
            if member.role != "follows":
                path, _, name = member.tensor.rpartition(".")
                parameter = getattr(model.get_submodule(path), name)  # under a mask it is not a parameter
                if member.tensor not in found:  # a mask is as large as a quarter of its weight
                    found[member.tensor] = torch.ones_like(parameter, dtype=torch.bool)
                mask = found[member.tensor]
                mask.index_fill_(member.dim, member.index(pruned).to(mask.device), False)
    return found


def couplings(model: nn.Module, example: object, *, dynamic: Dynamic | None = None) -> Couplings:
    """Trace `model` once in evaluation mode on `example`, and derive which dimensions must shrink together.

    Neither is changed. Only the type of `example` and the sizes of a row matter.

    Args:
        example: inputs of the network (see `compress.Inputs`).
        dynamic: names for dimensions of inputs that vary besides the batch (see `trace`).

    Raises:
        InputError: the network does not run on `example`, or `dynamic` does not fit it.
        UnsupportedModelError: it cannot be traced.
    """
    return couplings_in(model, trace(model, example, dynamic=dynamic))


def couplings_in(model: nn.Module, traced: Trace) -> Couplings:
    """The couplings in a trace of `model`, or in what is left of it without some branches."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return _collect(follow(model, traced), traced, shapes)


def follow(model: nn.Module, traced: Trace) -> Flow:
    """The dimensions of every value of a trace of `model`."""
    flow = Flow(model, traced.graph)
    for node in traced.graph.nodes:
        flow.visit(node, rule_of(node))
        if node.op == "call_function":
            note_zeros(flow, node)
    return flow


def _collect(flow: Flow, traced: Trace, shapes: Mapping[str, tuple[int, ...]]) -> Couplings:
    """A factor is a coupling if a layer writes it, another reads it or sums over it, and nothing keeps it."""
    shifts = tuple(checked(flow))
    found: list[Coupling] = []
    stuck: list[tuple[Coupling, str]] = []
    summed = {factor for dim in flow.summed for factor, _ in places(dim)}
    for factor, members in _members(flow).items():
        writers = [member for member in members if member.role == "writes"]
        if not writers:
            if any(member.tensor in flow.parameters for member in members if member.role == "follows"):
                keep([factor], "it is divided by its own length, and nothing else can make its nodes zero")
            continue
        if factor not in summed and not any(member.role == "reads" for member in members):
            keep([factor], "no layer with weights reads it")
        coupling = Coupling(layer_of(writers[0].tensor), factor.size, tuple(members), factor in summed, factor)
        if factor.reason is None:
            found.append(coupling)
        elif factor.reason not in BY_DESIGN:
            stuck.append((coupling, factor.reason))
    numbers = {number: tuple(dims) for number, dims in flow.numbers.items()}
    reasons = _reasons(flow)
    return Couplings(
        tuple(found), reasons, tuple(stuck), flow.names, shapes, flow.positions, flow.products, shifts, numbers, traced
    )


def _members(flow: Flow) -> dict[Factor, list[Member]]:
    members: dict[Factor, list[Member]] = defaultdict(list)
    for name, index, dim in _own_dims(flow):
        roles = _roles(flow, name, index)
        keep(repeated(dim), f"it occurs twice in one dimension of {name!r}")
        for factor, place in places(dim):
            step = 0 if place.step == factor.size * place.inner or place.outer == 1 else place.step
            for role in roles:
                where = (place.outer, place.inner, place.offset, step)
                members[factor].append(Member(name, index, role, factor.size, *where))
    return members


def _roles(flow: Flow, name: str, index: int) -> list[Role]:
    """A tensor counts as written unless it is known to be read: a bias, a scale, a learned position."""
    if name not in flow.parameters or (name, index) in flow.follows:
        return ["follows"]
    if (name, index) not in flow.reads:
        return ["writes"]
    return ["writes", "reads"] if (name, index) in flow.writes else ["reads"]


def _reasons(flow: Flow) -> dict[str, str]:
    """The reason for the width of each layer without a factor that can shrink (that of its outermost factor)."""
    reasons: dict[str, str] = {}
    used = {name for name, _ in flow.reads | flow.writes}
    for name, index, dim in _own_dims(flow):
        if (name, index) in flow.writes or (name in flow.parameters and name not in used):
            leaves = [factor for factor, _ in places(dim)]
            if not leaves and (name, index) not in flow.writes and math.prod(flow.shape_of(name)) > 1:
                continue  # such as the other dimensions of magnitudes [nodes, 1, 1]
            if all(factor.reason for factor in leaves):
                why = str(leaves[0].reason) if leaves else "it has a single node"
                for alias in flow.names[name]:
                    reasons.setdefault(layer_of(alias), why)
    return reasons | flow.kept


def _own_dims(flow: Flow) -> Iterator[tuple[str, int, Dim]]:
    for node, name in {name: (node, name) for node, name in flow.tensors.items()}.values():
        for index, dim in enumerate(flow.dims(node)):
            yield name, index, whole(dim)
