"""Find the widths that can be rotated, and the tensors that the rotation multiplies.

A network computes the same if all values of a width are multiplied by one orthogonal matrix Q: writers compute x Q, and
readers (x Q)(W Q)^T = x W^T. Sums of such values, their products with values that have no nodes of the
width, and root-mean-square norms commute with Q, since a rotation changes no
length (Ashkboos et al., "SliceGPT", 2024).
A gain, which scales each node separately, does not, unless it can be folded into the layers that read the scaled
values. Operators that subtract the mean of the nodes, or act on each of them, cannot be rotated.
"""

import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from compress.errors import TargetError
from compress.graph.coupling import Coupling, Couplings, follow
from compress.graph.dimensions import Dim, Factor, leaves, whole
from compress.graph.flow import Flow, arguments_of, at, layer_at
from compress.graph.layers import CONVOLUTIONS
from compress.graph.names import name_of
from compress.graph.rebuild import Rebuild
from compress.graph.rules import is_pointwise

_ADDING = {"addmm", "addmv", "baddbmm"}  # the bias comes first
_PRODUCTS = {
    *("linear", "matmul", "mm", "bmm", "mv", "einsum", "tensordot", "_grouped_mm", *_ADDING),
    *("transformers::grouped_mm_fallback", "convolution", "conv1d", "conv2d", "conv3d"),
}
# They move, copy or drop positions of their first argument, and keep the order of nodes.
_MOVING = {
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "t"),
    *("contiguous", "clone", "detach", "alias", "to", "_to_copy", "type_as", "dropout", "slice", "select", "narrow"),
    *("index", "index_select", "cat", "concat", "stack", "split", "chunk", "split_with_sizes", "unbind", "repeat"),
    *("expand", "expand_as", "neg", "zeros_like", "movedim", "swapaxes"),
}
_MEANS = {"layer_norm", "native_layer_norm", "group_norm", "batch_norm", "instance_norm", "var", "std", "var_mean"}


@dataclass(frozen=True)
class Gain:
    """A factor of each node: the parameter `tensor` plus `offset`, which is 1 in Gemma's norms."""

    tensor: str
    offset: float = 0.0


@dataclass(frozen=True)
class Rotation:
    """The tensors to change to rotate the nodes of a coupling.

    size: number of nodes.
    turned: the parameters, with the dimension along which each row is multiplied by Q.
    folded: those of them into which a gain is folded, which becomes 1.
    signals: for each distinct value that is read, a Linear or Conv that reads it.
    """

    size: int
    turned: Mapping[str, int]
    folded: Mapping[str, Gain]
    signals: tuple[str, ...]


def rotation_of(model: nn.Module, known: Couplings, coupling: Coupling) -> Rotation:
    """The rotation of the nodes of `coupling`, one of `known.found`, in `model`.

    Raises:
        TargetError: an operator that does not commute with a rotation, a gain that cannot be folded into a reader, or
            nodes that share a dimension with others; the message has the remedy.
    """
    flow = follow(model, known.trace)
    member = coupling.members[0]
    node = next(node for node, name in flow.tensors.items() if name == member.tensor)
    found = whole(flow.dims(node)[member.dim])
    walk = _Walk(flow, found[0], coupling.name)
    if len(found) > 1 or found[0].terms:
        walk.refuse(f"{member.tensor!r} holds them beside others in one dimension")
    for node in known.trace.graph.nodes:
        walk.visit(node)
    return walk.rotation()


@dataclass(frozen=True)
class _Nodes:
    """A value that rotates with the width; `gain` has to be folded into its readers."""

    gain: Gain | None = None


@dataclass(frozen=True)
class _Squares:
    """The squares of such a value, whose sum over the nodes does not change."""


@dataclass(frozen=True)
class _Even:
    """The same number at all nodes."""


@dataclass(frozen=True)
class _Own:
    """One of the network's parameters, plus `offset`; its use shows whether it rotates or is a gain."""

    tensor: str
    offset: float = 0.0


_State = _Nodes | _Squares | _Even | _Own


class _Walk:
    """One walk through the graph: the kind of value of each node that contains the width `factor`."""

    def __init__(self, flow: Flow, factor: Factor, name: str) -> None:
        self._flow, self._factor, self._name = flow, factor, name
        self._states: dict[fx.Node, _State] = {}
        self._uses: dict[str, list[Gain | None]] = defaultdict(list)
        self._gains: dict[str, Gain] = {}
        self._signals: dict[fx.Node, str] = {}

    def visit(self, node: fx.Node) -> None:
        if node.op == "get_attr" and self._holds(node):
            self._require_whole(node)
            self._states[node] = self._own(node)
        elif node.op != "call_function" or isinstance(node.target, Rebuild) or not _has_tensors(node):
            return
        elif self._holds(node) or any(source in self._states for source in node.all_input_nodes):
            found = self._result(node, name_of(node), arguments_of(node))
            if self._holds(node):
                self._require_whole(node)
                self._states[node] = found or self.refuse(f"{at(node)} makes them of something else")

    def rotation(self) -> Rotation:
        folded: dict[str, Gain] = {}
        for tensor, uses in self._uses.items():
            if tensor in self._gains:
                self.refuse(f"{tensor!r} scales them and adds to them")
            gain = next((gain for gain in uses if gain is not None), None)
            if gain is not None:
                folded[tensor] = gain
                if len(uses) > 1:
                    self._refuse_shared(tensor, gain)
        if not self._signals:
            self.refuse("no Linear or Conv layer reads them, so that their values cannot be seen")
        turned = {tensor: self._dim(tensor) for tensor in self._uses}
        return Rotation(self._factor.size, turned, folded, tuple(self._signals.values()))

    def refuse(self, why: str) -> NoReturn:
        raise TargetError(
            f"the nodes of {self._name!r} cannot be rotated onto their principal axes: {why}. principal_axes is for "
            "nodes that a single Linear reads, and for residual streams with root-mean-square norms; norms or "
            "taylor_square prune nodes as they are"
        )

    def _refuse_shared(self, tensor: str, gain: Gain) -> NoReturn:
        """A tensor is used after a gain, and elsewhere after none or another one."""
        names = self._flow.names[tensor]
        what, out = f"{tensor!r}", "give each place a tensor of its own"
        if len(names) > 1:
            what = f"{' and '.join(map(repr, names))} are one tensor, which"
            out = f"untie them before: model.{names[-1]} = torch.nn.Parameter(model.{names[-1]}.detach().clone())"
        self.refuse(f"{what} would have to take over the gain {gain.tensor!r} in one place and not in another; {out}")

    # --- what values are ---

    def _holds(self, node: fx.Node) -> bool:
        return any(self._factor in leaves(dim) for dim in _dims(self._flow.values[node]))

    def _require_whole(self, node: fx.Node) -> None:
        """A tensor has the nodes as exactly one dimension."""
        value = self._flow.values[node]
        for tensor in value if isinstance(value, list) else [value]:
            dims = [whole(dim) for dim in _dims(tensor) if self._factor in leaves(dim)]
            if len(dims) > 1 or any(dim != (self._factor,) for dim in dims):
                name = self._flow.tensors.get(node)
                self.refuse(f"{repr(name) if name else at(node)} has them twice, or beside others in one dimension")

    def _own(self, node: fx.Node) -> _Own:
        name = self._flow.tensors[node]
        if name not in self._flow.parameters:
            self.refuse(f"{name!r} is not a parameter")
        return _Own(name)

    def _dim(self, tensor: str) -> int:
        node = next(node for node, name in self._flow.tensors.items() if name == tensor and node.op == "get_attr")
        return next(place for place, dim in enumerate(self._flow.dims(node)) if whole(dim) == (self._factor,))

    # --- what operators make of them ---

    def _result(self, node: fx.Node, name: str, arguments: Mapping[str, Any]) -> _State | None:
        """None for a value without nodes of the width; it does not change in the rotated network."""
        if name in _PRODUCTS:
            return self._product(node)
        if name in _MOVING or node.target is operator.getitem:
            return self._moved(node, name)
        if name in ("add", "sub"):
            return self._sum(node, name)
        if name in ("mul", "div"):
            return self._scaled(node, name)
        if name == "square" or (name == "pow" and node.args[1] == 2):
            return self._squared(node)
        if name in ("sum", "mean", "linalg_vector_norm", "norm"):
            return self._reduced(node, name, arguments)
        if name == "embedding":
            return self._turned(node, arguments["weight"])
        if name == "rms_norm" and len(arguments["normalized_shape"]) == 1:
            found, weight = self._turned(node, arguments["input"]), self._states.get(arguments["weight"])
            return self._gained(node, found, weight) if isinstance(weight, _Own) else found
        if name in ("zeros", "new_zeros"):
            return _Nodes()
        if name in _MEANS:
            return self.refuse(f"{at(node)} subtracts a mean, which a rotation changes; nn.RMSNorm does not")
        known = "acts on each of them by itself" if is_pointwise(name) else "is not known to let a rotation pass"
        return self.refuse(f"{at(node)} {known}")

    def _product(self, node: fx.Node) -> _State | None:
        factors, bias = _factors(node)
        found = [(factor, self._states[factor]) for factor in factors if factor in self._states]
        if len(found) == 2 and not self._holds(node):
            self._read(node, *found)
            return None
        if len(found) != 1 or not self._holds(node):
            self.refuse(f"{at(node)} multiplies them with each other, or sums over them")
        result = self._turned(node, found[0][0])
        if bias is not None and self._turned(node, bias) != result:
            self.refuse(f"{at(node)} adds a bias to nodes that {result.gain and result.gain.tensor!r} scales")
        return result

    def _read(self, node: fx.Node, *operands: tuple[fx.Node, _State]) -> None:
        """A sum over the nodes of products: of values with a parameter, or of two of either."""
        own = [state for _, state in operands if isinstance(state, _Own)]
        values = [(source, state) for source, state in operands if isinstance(state, _Nodes)]
        gain = values[0][1].gain if len(values) == 1 and len(own) == 1 else None
        if len(own) + len(values) < 2 or (len(values) == 2 and any(state.gain for _, state in values)):
            self.refuse(f"{at(node)} multiplies them with each other")
        for tensor in own:
            self._use(node, tensor, gain)
        layer = self._flow.module_at(node)
        if len(values) == 1 and isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
            self._signals.setdefault(values[0][0], layer_at(node))

    def _moved(self, node: fx.Node, name: str) -> _State | None:
        sources = [source for source in tree_leaves(node.args[0]) if isinstance(source, fx.Node)]
        states = dict.fromkeys(self._states.get(source) for source in sources)
        if name.startswith("expand") and list(states) == [None]:
            return _Even()
        if len(states) > 1:  # joined, beside each other in another dimension
            states = dict.fromkeys(self._turned(node, source) for source in sources)
        if len(states) > 1:
            self.refuse(f"{at(node)} joins values with different gains")
        return next(iter(states))

    def _sum(self, node: fx.Node, name: str) -> _State:
        one, other = self._operands(node)
        if isinstance(one, _Own) and name == "add" and isinstance(other, int | float):
            return replace(one, offset=one.offset + other * arguments_of(node).get("alpha", 1))
        found = [self._turned(node, source) for source in node.args[:2]]
        if found[0] != found[1]:
            gains = " and ".join(repr(value.gain.tensor) for value in found if value.gain)
            self.refuse(f"{at(node)} adds nodes that {gains} scales, one by one, to nodes that it does not scale")
        return found[0]

    def _scaled(self, node: fx.Node, name: str) -> _State:
        one, other = self._operands(node)
        if name == "mul" and isinstance(one, _Own | _Even) and isinstance(other, _Nodes | _Squares):
            one, other = other, one
        if isinstance(one, _Nodes) and isinstance(other, _Own) and name == "mul":
            return self._gained(node, one, other)
        if name == "mul" and node.args[0] is node.args[1]:
            return self._squared(node)
        if isinstance(other, _Even) or not isinstance(other, _State):
            return self._turned(node, node.args[0]) if isinstance(one, _Own) else self._state(node, one)
        if name == "mul" and not isinstance(one, _State):
            return self._turned(node, node.args[1]) if isinstance(other, _Own) else self._state(node, other)
        return self.refuse(f"{at(node)} multiplies or divides them by each other")

    def _squared(self, node: fx.Node) -> _State:
        if self._turned(node, node.args[0]).gain is not None:
            self.refuse(f"{at(node)} squares nodes that a gain scales")
        return _Squares()

    def _reduced(self, node: fx.Node, name: str, arguments: Mapping[str, Any]) -> _State | None:
        state = self._state(node, self._states.get(node.args[0]))  # type: ignore[arg-type]
        if self._holds(node) and name in ("sum", "mean"):  # over other dimensions
            return state
        is_length = name in ("linalg_vector_norm", "norm") and arguments.get("ord", arguments.get("p")) in (None, 2)
        invariant = state == _Nodes() if is_length else isinstance(state, _Squares) and name in ("sum", "mean")
        if self._holds(node) or not invariant:
            self.refuse(f"{at(node)} takes the {name} over them")
        return None

    # --- what they are made of ---

    def _operands(self, node: fx.Node) -> tuple[Any, Any]:
        """The two operands: states, or nodes or numbers that have no state."""
        one, other = (
            self._states.get(source, source) if isinstance(source, fx.Node) else source for source in node.args[:2]
        )
        return one, other

    def _state(self, node: fx.Node, found: object) -> _State:
        return found if isinstance(found, _State) else self.refuse(f"{at(node)} adds or takes what has no such nodes")

    def _turned(self, node: fx.Node, source: Any) -> _Nodes:
        """The operand as a value that rotates; a parameter rotates from now on."""
        state = self._states.get(source) if isinstance(source, fx.Node) else None
        if isinstance(state, _Own):
            self._use(node, state, None)
            return _Nodes()
        if isinstance(state, _Nodes):
            return state
        return self.refuse(f"{at(node)} adds a number to each of them, or uses their squares")

    def _use(self, node: fx.Node, own: _Own, gain: Gain | None) -> None:
        if own.offset:
            self.refuse(f"{at(node)} adds {own.offset:g} to each entry of {own.tensor!r}")
        if gain not in self._uses[own.tensor]:
            self._uses[own.tensor].append(gain)

    def _gained(self, node: fx.Node, value: _Nodes, own: _Own) -> _Nodes:
        """`value` with a gain; a gain that is the same for all nodes commutes with a rotation."""
        gain, parameter = Gain(own.tensor, own.offset), self._flow.parameters[own.tensor]
        if self._gains.setdefault(own.tensor, gain) != gain or parameter.numel() != self._factor.size:
            self.refuse(f"{at(node)} scales them by {own.tensor!r} in several ways")
        if bool((parameter == parameter.flatten()[0]).all()):
            return value
        if value.gain is not None:
            self.refuse(f"{at(node)} scales them by {own.tensor!r} after {value.gain.tensor!r}")
        return _Nodes(gain)


def _dims(value: Any) -> Iterator[Dim]:
    """The dimensions of all tensors in a value."""
    for item in value or ():
        if isinstance(value, list):
            yield from _dims(item)
        else:
            yield item


def _has_tensors(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor | tuple | list)


def _factors(node: fx.Node) -> tuple[list[fx.Node], fx.Node | None]:
    """The factors of a product, repeated ones too, and the bias that is added."""
    bias = node.args[0] if name_of(node) in _ADDING else arguments_of(node).get("bias")
    given = [source for source in tree_leaves((node.args, node.kwargs)) if isinstance(source, fx.Node)]
    if isinstance(bias, fx.Node):
        given.remove(bias)
        return given, bias
    return given, None
