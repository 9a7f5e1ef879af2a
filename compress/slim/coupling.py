"""What shrinks together, derived from the network itself.

The network is traced once with `torch.export`, and the sizes of its tensors are followed through the graph. A
dimension is a product of factors, outermost first: after `Flatten` it is channels x height x width. Operators align
dimensions, and aligning n with a x b finds that n was a product all along, so that the rows of a Linear before
`Unflatten` turn out to be channels x height x width too. What is left whole at the end is a width, and every
(tensor, dimension) that holds it shrinks with it.

A rule of an operator (`_RULES`) says how its result's dimensions follow from its operands'. Without a rule the widths
involved are kept, with the operator's name as the reason: nothing is guessed.
"""

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from compress.errors import InputError, TargetError, UnsupportedModelError
from compress.metrics import evaluation_mode

Role = Literal["writes", "reads"]


@dataclass(frozen=True)
class Member:
    """One dimension of one tensor that holds the nodes of a coupling.

    writes: row or bias of a layer that computes the nodes; reads: column of a layer that takes them.
    The dimension's length is outer * size * inner, where `size` is the coupling's number of nodes.
    """

    tensor: str
    dim: int
    role: Role
    size: int
    outer: int = 1
    inner: int = 1

    def index(self, nodes: Tensor) -> Tensor:
        """Positions along `dim` that belong to `nodes` [n] (int64); [outer * n * inner], ascending if they are."""
        outer = torch.arange(self.outer, device=nodes.device)[:, None, None]
        inner = torch.arange(self.inner, device=nodes.device)
        return ((outer * self.size + nodes[:, None]) * self.inner + inner).flatten()


@dataclass(frozen=True)
class Attribute:
    """One number in a module's attribute, a tuple, that is a multiple of a coupling's number of nodes."""

    module: str
    name: str
    index: int


@dataclass(frozen=True)
class Coupling:
    """Nodes that live and go together everywhere: node j of every member, for j in [0, size)."""

    name: str
    size: int
    members: tuple[Member, ...]
    attributes: tuple[Attribute, ...] = ()

    def masks(self, model: nn.Module, keep: Tensor) -> dict[str, Tensor]:
        """What to keep of each parameter so that nodes go on both sides: their rows and biases, and their columns.

        Args:
            keep: bool [size], False for the nodes that go.

        Returns:
            Bool masks of the parameters' shapes by qualified name, True = keep.
        """
        found: dict[str, Tensor] = {}
        gone = (~keep).nonzero().flatten()
        for member in self.members:
            path, _, name = member.tensor.rpartition(".")
            parameter = getattr(model.get_submodule(path), name)  # under a mask it is no parameter
            mask = found.setdefault(member.tensor, torch.ones_like(parameter, dtype=torch.bool))
            mask.index_fill_(member.dim, member.index(gone).to(mask.device), False)
        return found


@dataclass(frozen=True)
class Couplings:
    """`found` can shrink. `kept` maps a layer's name to the reason why its width stays.

    `stuck`, with their reasons: what is known of the widths that stay because the network is not understood there,
    rather than because they are its input, its output or the size of a picture.
    """

    found: tuple[Coupling, ...]
    kept: Mapping[str, str]
    stuck: tuple[tuple[Coupling, str], ...]

    def of(self, module: str) -> Coupling:
        """The coupling whose nodes the layer `module` (its qualified name) computes; the outermost of several.

        Raises:
            UnsupportedModelError: its width is kept; the message has the reason.
            TargetError: no such layer, or one that computes no nodes.
        """
        for coupling in self.found:
            if any(member.role == "writes" and layer_of(member.tensor) == module for member in coupling.members):
                return coupling
        if module in self.kept:
            raise UnsupportedModelError(f"The layer {module!r} must keep its width: {self.kept[module]}.")
        names = ", ".join(coupling.name for coupling in self.found) or "none"
        raise TargetError(f"There is no layer {module!r} with nodes of its own; layers whose nodes can go: {names}.")


def couplings(model: nn.Module, example: Tensor) -> Couplings:
    """Derive from one trace of `model` in evaluation mode on `example` [N, ...] what shrinks together.

    Neither is changed. The first two rows of `example` are traced with a dynamic batch size; the values don't matter.

    Raises:
        InputError: the network does not run on `example`.
        UnsupportedModelError: `torch.export` cannot trace it.
    """
    program = _trace(model, example)
    flow = _Flow(model, program)
    for node in program.graph.nodes:
        flow.visit(node)
    return _collect(flow)


def layer_of(tensor: str) -> str:
    """Name of the layer that a qualified parameter name belongs to; a bare parameter is a layer of its own."""
    path, _, leaf = tensor.rpartition(".")
    return path if path and leaf in ("weight", "bias") else tensor


def _trace(model: nn.Module, example: Tensor) -> ExportedProgram:
    if example.ndim == 0 or example.shape[0] == 0:
        raise InputError(f"The example has the shape {list(example.shape)}; it needs a batch dimension with a row.")
    # torch.export takes a batch of one for a constant.
    rows = torch.cat([example[:2], example[:2]])[:2]
    with evaluation_mode(model):
        try:
            model(rows)
        except Exception as error:
            raise InputError(f"The network does not run on an example of shape {list(rows.shape)}: {error}") from error
        try:
            return torch.export.export(model, (rows,), dynamic_shapes=({0: Dim.AUTO},), strict=False)
        except Exception as error:
            raise UnsupportedModelError(f"The network cannot be traced by torch.export: {error}") from error


# --- the algebra of dimensions ---


@dataclass(eq=False)
class _Factor:
    """A factor of a dimension. Once found to be the product of others, `parts`, it stands for them."""

    size: int
    reason: str | None = None  # why it must keep its size
    parts: tuple["_Factor", ...] = ()


_Dim = tuple[_Factor, ...]  # a product; () is the size 1
_Value = tuple[_Dim, ...] | list[Any] | None  # a tensor's dimensions; a list for several tensors; None for a number


def _whole(dim: Iterable[_Factor]) -> _Dim:
    """The product `dim` in factors that are not known to be products."""
    leaves: list[_Factor] = []
    for factor in dim:
        if factor.parts:
            factor.parts = _whole(factor.parts)
        leaves += factor.parts or (factor,)
    return tuple(leaves)


def _refine(factor: _Factor, front: _Factor) -> None:
    """`factor` turns out to be `front` x something, or to be `front` itself."""
    back = _fresh(factor.size // front.size, factor.reason)
    front.reason = front.reason or factor.reason
    factor.parts = (front, *back)


def _fresh(size: int, reason: str | None = None) -> _Dim:
    return () if size == 1 else (_Factor(size, reason),)


def _align(one: _Dim, other: _Dim, reason: str) -> None:
    """Both are the same dimension: refine them to common factors. Where that is impossible they are kept."""
    while True:
        one, other = _whole(one), _whole(other)
        while one and other and one[0] is other[0]:
            one, other = one[1:], other[1:]
        if not one or not other:
            break
        small, large = sorted((one[0], other[0]), key=lambda factor: factor.size)
        if large.size % small.size:
            _keep((one, other), reason)
            break
        _refine(large, small)


def _regroup(dims: Iterable[_Dim], sizes: Iterable[int]) -> tuple[_Dim, ...] | None:
    """The factors of `dims`, in order, as dimensions of the given sizes; None where the borders do not meet."""
    pending = _whole(factor for dim in dims for factor in dim)
    result: list[_Dim] = []
    for size in sizes:
        dim: _Dim = ()
        while size > 1 and pending:
            head = pending[0]
            if size % head.size == 0:
                dim, pending, size = (*dim, head), pending[1:], size // head.size
            elif head.size % size == 0:
                _refine(head, _Factor(size))
                pending = _whole(pending)
            else:
                return None
        result.append(dim)
    return tuple(result) if not pending else None


def _keep(value: Iterable[Any] | None, reason: str) -> None:
    """Every factor in `value` keeps its size; the first reason given stays."""
    for item in value or ():
        if isinstance(item, _Factor):
            for factor in _whole((item,)):
                factor.reason = factor.reason or reason
        else:
            _keep(item, reason)


# A prime that no layer's width is divisible by: the batch, whose size is a symbol, thus stays a factor of its own.
_BATCH = 1_000_003


def _size(extent: int | torch.SymInt) -> int:
    if isinstance(extent, int):
        return extent
    expression = extent.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, _BATCH)))


def _fresh_value(example: object, reason: str | None = None) -> _Value:
    """Dimensions for the traced value `example` of which nothing is known but their sizes."""
    if isinstance(example, Tensor):
        return tuple(_fresh(_size(extent), reason) for extent in example.shape)
    if isinstance(example, tuple | list):
        return [_fresh_value(item, reason) for item in example]
    return None


# --- the walk through the graph ---

_INPUT = "it is a size of the network's input"
_OUTPUT = "it is the network's output"
_EXTENT = "it is a length that does not count nodes, such as a picture's height"
_BY_DESIGN = (_INPUT, _OUTPUT, _EXTENT)


class _Flow:
    """What the walk has learned: the dimensions of every value, and what the network's own tensors are used for."""

    def __init__(self, model: nn.Module, program: ExportedProgram) -> None:
        self.values: dict[fx.Node, _Value] = {}
        self.tensors: dict[fx.Node, str] = {}
        self.roles: dict[tuple[str, int], Role] = {}
        self.attributes: dict[Attribute, _Dim] = {}
        self.kept: dict[str, str] = {}
        self._model = model
        self._specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._namesakes = _namesakes(model)

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.values[node] = self._given(node)
        elif node.op == "output":
            for source in node.all_input_nodes:
                _keep(self.values[source], _OUTPUT)
        elif node.op == "call_function":
            result = _rule(node)(self, node, _arguments(node))
            self.values[node] = self._opaque(node, result) if isinstance(result, str) else result
        else:
            self.values[node] = None  # an inner graph: the operator that runs it has no rule

    def dims(self, node: fx.Node) -> tuple[_Dim, ...]:
        """Dimensions of a node whose value is one tensor."""
        value = self.values[node]
        assert isinstance(value, tuple)
        return value

    def use(self, node: fx.Node, dim: int, role: Role) -> None:
        """Note what dimension `dim` of one of the network's own tensors is used for."""
        if node in self.tensors:
            self.roles[self.tensors[node], dim] = role

    def spelled_out(self, node: fx.Node, dims: Mapping[int, _Dim]) -> None:
        """`dims`: those of a reshape's result whose sizes are numbers in the code, by position in its list of sizes.

        After a cut they would be wrong, so they are kept, unless an `nn.Unflatten` holds them and can be edited.
        """
        path = _layer(node)
        numbers = {Attribute(path, "unflattened_size", index): dim for index, dim in dims.items()}
        used_before = [self.attributes[number] for number in numbers if number in self.attributes]
        if not isinstance(self._model.get_submodule(path), nn.Unflatten) or used_before:
            _keep([*dims.values(), *used_before], f"{_at(node)} has the size as a number in the network's code")
        else:
            self.attributes |= numbers

    def _given(self, node: fx.Node) -> _Value:
        spec, value = self._specs[node.name], _fresh_value(node.meta["val"])
        names = self._namesakes.get(str(spec.target), ())
        if spec.kind is InputKind.USER_INPUT:
            _keep(value, _INPUT)
        elif not names:
            _keep(value, f"{spec.target!r} is not part of the network's state_dict")
        else:
            self.tensors[node] = str(spec.target)
            if len(names) > 1:
                self._hold(value, f"the tensor {names[0]!r} is shared with {', '.join(map(repr, names[1:]))}", names)
            elif len(node.users) != 1:
                uses = f"uses the tensor {names[0]!r} {len(node.users)} times" if node.users else "does not use it"
                self._hold(value, f"the forward pass {uses}", names)
        return value

    def _opaque(self, node: fx.Node, why: str) -> _Value:
        reason = f"{_at(node)} {why}"
        for source in node.all_input_nodes:
            self._hold(self.values[source], reason, [self.tensors[source]] if source in self.tensors else [])
        return _fresh_value(node.meta.get("val"), reason)

    def _hold(self, value: _Value, reason: str, names: Iterable[str]) -> None:
        """Keep `value`, and say so for the layers of the tensors `names`."""
        _keep(value, reason)
        for name in names:
            if name in self._parameters:
                self.kept.setdefault(layer_of(name), reason)


def _namesakes(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """For every tensor of the state_dict the names of all that begin where it does; more than one: it is tied."""
    names: dict[int, list[str]] = defaultdict(list)
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        names[tensor.data_ptr()].append(name)
    return {name: tuple(names[tensor.data_ptr()]) for name, tensor in tensors.items()}


def _layer(node: fx.Node) -> str:
    """Qualified name of the innermost module whose code made `node`; "" for the network itself."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def _at(node: fx.Node) -> str:
    return f"{node.target} in {_layer(node) or 'the network'!r}"


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments of an operator by name, defaults included."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {}
    schema = node.target._schema.arguments
    defaults = {argument.name: argument.default_value for argument in schema}
    return defaults | dict(zip(defaults, node.args, strict=False)) | node.kwargs


def _collect(flow: _Flow) -> Couplings:
    """A factor that a layer writes, another reads and nothing keeps is a coupling."""
    found: list[Coupling] = []
    stuck: list[tuple[Coupling, str]] = []
    for factor, members in _members(flow).items():
        writers = [member for member in members if member.role == "writes"]
        if not writers:
            continue
        if len(writers) == len(members):
            _keep([factor], "no layer with weights reads it")
        attributes = tuple(number for number, dim in flow.attributes.items() if factor in _whole(dim))
        coupling = Coupling(layer_of(writers[0].tensor), factor.size, tuple(members), attributes)
        if factor.reason is None:
            found.append(coupling)
        elif factor.reason not in _BY_DESIGN:
            stuck.append((coupling, factor.reason))
    return Couplings(tuple(found), _reasons(flow), tuple(stuck))


def _members(flow: _Flow) -> dict[_Factor, list[Member]]:
    members: dict[_Factor, list[Member]] = defaultdict(list)
    for name, index, dim in _own_dims(flow):
        role = flow.roles.get((name, index))
        for place, factor in enumerate(dim):
            if role is None:
                _keep([factor], f"a computation takes {name!r} for something else than a layer's weight or bias")
            elif dim.count(factor) > 1:
                _keep([factor], f"it stands twice in one dimension of {name!r}")
            else:
                outer, inner = (math.prod(other.size for other in part) for part in (dim[:place], dim[place + 1 :]))
                members[factor].append(Member(name, index, role, factor.size, outer, inner))
    return members


def _reasons(flow: _Flow) -> dict[str, str]:
    """Of every layer none of whose factors can shrink: why (the outermost one's reason)."""
    reasons = dict(flow.kept)
    for name, index, dim in _own_dims(flow):
        if flow.roles.get((name, index)) == "writes" and all(factor.reason for factor in dim):
            reasons.setdefault(layer_of(name), str(dim[0].reason) if dim else "it has a single node")
    return reasons


def _own_dims(flow: _Flow) -> Iterator[tuple[str, int, _Dim]]:
    for node, name in flow.tensors.items():
        for index, dim in enumerate(flow.dims(node)):
            yield name, index, _whole(dim)


# --- the rules: dimensions of an operator's result, or the reason why they cannot be followed ---

_Rule = Callable[[_Flow, fx.Node, dict[str, Any]], _Value | str]


def _no_rule(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> str:
    return "has no rule"


def _number(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> None:
    """A size or an assertion: no values pass."""


def _item(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> _Value | str:
    several: Any = flow.values[node.all_input_nodes[0]]
    item: _Value = several[node.args[1]] if several else None
    return item or "has no rule"


def _elementwise(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> _Value | str:
    """Node j of the result depends on node j of the operands only, whatever f(0) is."""
    if not isinstance(node.meta["val"], Tensor):
        return "has no rule"
    number: tuple[_Dim, ...] = ((),) * node.meta["val"].ndim
    values = [flow.values[source] for source in node.all_input_nodes]
    tensors = {(*number[len(value) :], *(_whole(dim) for dim in value)) for value in values if isinstance(value, tuple)}
    tensors.discard(number)  # a tensor of one entry, too, is broadcast like a number
    return "combines values of several sources" if len(tensors) > 1 else next(iter(tensors), number)


def _weighted(
    flow: _Flow, node: fx.Node, source: fx.Node, weight: fx.Node, bias: fx.Node | None, writes: int, reads: int
) -> _Value | str:
    """Every result node sums over all source nodes; dimensions `writes` and `reads` of the weight count them."""
    if weight not in flow.tensors:
        return "has a weight that is computed, or not saved with the network"
    flow.use(weight, writes, "writes")
    flow.use(weight, reads, "reads")
    matrix, extents = flow.dims(weight), len(flow.dims(weight)) - 2
    if bias is not None:
        if len(flow.dims(bias)) != 1:
            return "has a bias that is no vector"
        flow.use(bias, 0, "writes")
        _align(flow.dims(bias)[0], matrix[writes], f"{_at(node)} has a bias of another width")
    if _arguments(node).get("groups", 1) != 1:
        return "is grouped"
    *rest, nodes = flow.dims(source)[: len(flow.dims(source)) - extents]
    _align(nodes, matrix[reads], f"{_at(node)} reads a width that its source does not have")
    return (*rest, matrix[writes], *_new_extents(flow, source, node.meta["val"], extents))


def _new_extents(flow: _Flow, source: fx.Node, example: Tensor, count: int) -> tuple[_Dim, ...]:
    """The last `count` dimensions, where the operator mixes positions: kept before it and after."""
    first = example.ndim - count
    _keep(flow.dims(source)[first:], _EXTENT)
    return tuple(_fresh(_size(extent), _EXTENT) for extent in example.shape[first:])


def _linear(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> _Value | str:
    """Linear layers, and convolutions, whose weights are the same with a window behind."""
    return _weighted(flow, node, arguments["input"], arguments["weight"], arguments["bias"], writes=0, reads=1)


def _addmm(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> _Value | str:
    return _weighted(flow, node, arguments["mat1"], arguments["mat2"], arguments["self"], writes=1, reads=0)


def _transposed(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> _Value | str:
    return _weighted(flow, node, arguments["input"], arguments["weight"], arguments["bias"], writes=1, reads=0)


def _resampled(rank: int) -> _Rule:
    def rule(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> _Value | str:
        """Pooling or upsampling over the last `rank` dimensions; with positions of maxima, two results alike."""
        source = node.all_input_nodes[0]
        results = node.meta["val"]
        before = flow.dims(source)[:-rank]
        if isinstance(results, Tensor):
            return (*before, *_new_extents(flow, source, results, rank))
        return [(*before, *_new_extents(flow, source, result, rank)) for result in results]

    return rule


def _flatten(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> tuple[_Dim, ...] | str:
    dims = flow.dims(arguments["self"])
    sizes = [_size(extent) for extent in node.meta["val"].shape]
    return _regroup(dims, sizes) or "regroups dimensions whose borders do not meet"


def _view(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> tuple[_Dim, ...] | str:
    sizes = arguments.get("size", arguments.get("shape"))
    if sizes is None:  # a view as another dtype
        return "has no rule"
    result = _flatten(flow, node, arguments)
    if isinstance(result, tuple):
        flow.spelled_out(node, {place: dim for place, dim in enumerate(result) if sizes[place] != -1})
    return result


def _unflatten(flow: _Flow, node: fx.Node, arguments: dict[str, Any]) -> tuple[_Dim, ...] | str:
    sizes = arguments["sizes"]
    result = _flatten(flow, node, arguments)
    if isinstance(result, tuple):
        split = result[arguments["dim"] % len(flow.dims(arguments["self"])) :]
        flow.spelled_out(node, {place: split[place] for place, size in enumerate(sizes) if size != -1})
    return result


_ONE_TO_ONE = (
    *("contiguous", "detach", "alias", "to", "where", "hardswish", "log_sigmoid", "prelu"),
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
)
_RESAMPLING = (
    *("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "adaptive_max_pool{}d", "adaptive_avg_pool{}d"),
    *("upsample_nearest{}d", "_upsample_nearest_exact{}d"),
)
# By operator, whatever its overload, in place or not. What torch itself tags as pointwise needs no entry.
_RULES: dict[str, _Rule] = {
    "sym_size": _number,
    "_assert_tensor_metadata": _number,
    "linear": _linear,
    "addmm": _addmm,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    "unflatten": _unflatten,
    "upsample_linear1d": _resampled(1),
    "upsample_bilinear2d": _resampled(2),
    "upsample_bicubic2d": _resampled(2),
    "upsample_trilinear3d": _resampled(3),
    **dict.fromkeys(_ONE_TO_ONE, _elementwise),
    **{f"conv{rank}d": _linear for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _transposed for rank in (1, 2, 3)},
    **{name.format(rank): _resampled(rank) for rank in (1, 2, 3) for name in _RESAMPLING},
}


def _rule(node: fx.Node) -> _Rule:
    if node.target is operator.getitem:
        return _item
    if not isinstance(node.target, torch._ops.OpOverload):
        return _no_rule
    name = node.target._schema.name.removeprefix("aten::").removesuffix("_")
    return _RULES.get(name) or (_elementwise if torch.Tag.pointwise in node.target.tags else _no_rule)
