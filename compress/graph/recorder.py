"""`Recorder`: receives every operator that a network calls, runs it without data, and writes it into a graph.

Values that depend on neither the inputs nor the network's own tensors are computed with data, so they are known: the
code may index with them, compare them or turn them into numbers. Such a constant enters the graph where an operator
combines it with something else.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as hooks
from torch.utils._pytree import tree_leaves

from compress.errors import UnsupportedModelError
from compress.graph.callers import guarded
from compress.graph.dimensions import BATCH
from compress.graph.eager_mode import EagerMode
from compress.graph.following_sizes import FollowingSizes
from compress.graph.meta_results import result_of
from compress.graph.rebuild import Rebuild, outline
from compress.graph.stand_in import META, StandIn, without_data
from compress.inputs import Inputs

_ATEN = torch.ops.aten
# They return a number or a bool, from the values of a tensor.
_READ_VALUES = {
    *(_ATEN._local_scalar_dense.default, _ATEN.item.default, _ATEN.is_nonzero.default),
    *(_ATEN.equal.default, _ATEN.allclose.default),
}
# The first operator that is seen of a tensor that `torch.tensor` creates.
_FRESH = {_ATEN.lift_fresh.default, _ATEN.lift.default, _ATEN.detach_.default}
_SIZES = dict.fromkeys((operator.mul, operator.add, operator.floordiv), "size")  # names of what computes them
_ROW_BY_ROW = "it loops over its batch row by row, so that the trace would hold for one size of the batch"


class TooManyOperatorsError(UnsupportedModelError):
    """Raised early, since running the network further shows nothing new."""


class NeedsValuesError(UnsupportedModelError):
    """The network's code depends on values that are known for one input only."""


class Recorder(EagerMode):
    """The graph of all calls inside `with recorder.following(network), recorder:`.

    sizes: a prime for each size that may vary, by name; sizes that follow from it are multiples of it.
    following: other sizes that follow from these, if more sizes than the batch may vary.
    constants: those in the graph, by name.
    read: names of the network's own tensors whose values its code has turned into numbers.
    own: stand-ins of the network's own tensors, by the identity of the tensor.
    watch: called with each new stand-in.
    """

    def __init__(
        self,
        most: int,
        sizes: Mapping[str, int],
        watch: Callable[[Tensor], None],
        following: FollowingSizes | None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.read: set[str] = set()
        self.own: dict[int, StandIn] = {}
        self.failed: Any = None
        self._most = most
        self._watch = watch
        self._sizes = dict(sizes)
        self._places: dict[int, tuple[fx.Node, int]] = {}  # a size of an input, and where it is found
        self._computed: dict[int, fx.Node] = {}
        self._following = following
        self._tensors: dict[str, Tensor] = {}
        self._loose: dict[int, tuple[Tensor, StandIn]] = {}  # with the tensor, so that no other gets its identity
        self._values: dict[fx.Node, Any] = {}
        self._written: set[Any] = set()  # memory of constants that something else was written into
        self._foreign: set[Any] = set()  # memory of tensors that were there before the trace
        self._layers = [""]
        self._paths: dict[nn.Module, str] = {}
        self._inputs: dict[int, fx.Node] = {}

    # What the network is given

    def input(self, name: str, value: Any) -> Any:
        """Create a placeholder for one argument; return the argument with its tensors, which are `Sized`, replaced."""
        return self._entered(self.graph.placeholder(name), value)

    def _entered(self, node: fx.Node, value: Any) -> Any:
        node.meta |= {"layer": "", "val": value}
        if isinstance(value, Sized):
            node.meta["val"] = value.bare
            self._values[node] = value.tensor
            self._inputs[id(value)] = node
            stand_in = self._stand_in(value.bare, value.tensor.device, node)
            for place, size in enumerate(value.bare.shape):
                self._places.setdefault(size, (node, place))
            return stand_in
        if isinstance(value, list | tuple | dict):
            keys = value if isinstance(value, dict) else range(len(value))
            entries = {key: self._item(node, key, value[key]) for key in keys}
            node.meta["val"] = _mapped(lambda one: one.bare if isinstance(one, Sized) else one, value)
            return entries if isinstance(value, dict) else _like(value, entries.values())
        return value

    def _item(self, node: fx.Node, key: Any, value: Any) -> Any:
        if not any(isinstance(leaf, Sized) for leaf in _leaves(value)):
            return value
        return self._entered(self.graph.call_function(operator.getitem, (node, key)), value)

    def inputs_in(self, given: Inputs) -> tuple[fx.Node, ...]:
        """The nodes of the tensors of a call, whose arguments `input` has been given, in order."""
        leaves = tree_leaves((tuple(given.args), dict(given.kwargs)))
        return tuple(self._inputs[id(leaf)] for leaf in leaves if isinstance(leaf, Sized))

    def own_tensor(self, name: str, tensor: Tensor) -> StandIn:
        """The stand-in of a tensor of the network; a tensor with several names has one."""
        self._tensors[name] = tensor
        if id(tensor) not in self.own:
            if any(map(self._is_multiple, tensor.shape)):
                kept = ", ".join(map(str, self._sizes.values()))
                raise UnsupportedModelError(
                    f"{name!r} has the shape {list(tensor.shape)}; {kept} is kept for sizes that vary"
                )
            node = self.graph.create_node("get_attr", name)
            bare = without_data(tensor)
            node.meta |= {"layer": "", "val": bare.detach()}
            self.own[id(tensor)] = self._stand_in(bare, tensor.device, node)
            self.own[id(tensor)]._is_param = isinstance(tensor, nn.Parameter)
        return self.own[id(tensor)]

    def finish(self, result: Any) -> None:
        """End the graph with what the network returns, however nested."""

        def rebuilt(rebuild: Rebuild, entries: dict[Any, Any]) -> fx.Node:
            node = self.graph.call_function(rebuild, (entries,))
            node.meta |= {"layer": "", "val": None}
            return node

        self.graph.output(outline(result, lambda tensor: self._node(self._entry(tensor)), rebuilt))

    @contextmanager
    def following(self, network: nn.Module) -> Iterator[None]:
        """Track which module's code calls each operator."""
        self._paths = {module: name for name, module in network.named_modules()}

        def enter(module: nn.Module, inputs: Any) -> None:
            self._layers.append(self._paths.get(module, self._layers[-1]))

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._layers.pop()

        before = hooks.register_module_forward_pre_hook(enter)
        after = hooks.register_module_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    # Operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FRESH:
            return self._entry(args[0], foreign=False)
        if func is _ATEN.detach.default and not isinstance(args[0], StandIn) and id(args[0]) not in self.own:
            return func(*args)  # `numpy()` is about to read its memory
        entries = [self._entry(tensor) for tensor in _leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        if self._following:
            self._following.call(func, (leaf for leaf in _leaves((args, kwargs)) if type(leaf) is int))
        try:
            if self._is_constant(func, entries, args, kwargs):
                return self._constant(func, args, kwargs)
            if func in _READ_VALUES:
                return self._number(func, args, kwargs, entries)
            return self._recorded(func, args, kwargs)
        except Exception:
            self.failed = self.failed or (func, self._layers[-1])
            raise

    def _is_constant(self, func: Any, entries: list[StandIn], args: Any, kwargs: Any) -> bool:
        if torch.Tag.nondeterministic_seeded in func.tags or not all(map(self._known, entries)):
            return False
        return not any(self._varies(leaf) for leaf in _leaves((args, kwargs)) if type(leaf) is int)

    def _known(self, entry: StandIn) -> bool:
        return entry.value is not None and _memory(entry.value) not in self._written

    def _constant(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator of constants."""
        given: dict[int, Tensor] = {}

        def real(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            found = self._entry(value).value
            given[id(found)] = value
            return found

        arguments, named = _mapped(real, args), _mapped(real, kwargs)
        if func._schema.is_mutable:
            self._require_own(func, args, kwargs)
        result = func(*arguments, **named)
        if func._schema.is_mutable and id(result) in given:
            return self._resized(func, self._entry(given[id(result)]), args)
        aliases = any(output.alias_info is not None for output in func._schema.returns)
        recipe = (func, args, kwargs) if aliases else None

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if id(value) in given:  # the very tensor, whose memory `numpy()` may be about to read
                return given[id(value)]
            return self._stand_in(value, value.device, None, value, recipe)

        return _mapped(wrapped, result)

    def _number(self, func: Any, args: Any, kwargs: Any, entries: list[StandIn]) -> Any:
        """A number from the network's own tensors, or for a condition that only guards; others are refused."""
        if func is _ATEN.item.default and _is_first_of_packed(self._node(entries[0])):
            return BATCH
        if all(self._own_alone(self._node(entry)) for entry in entries) or guarded():
            given = _mapped(lambda value: self._value(value) if isinstance(value, Tensor) else value, args)
            return func(*given, **kwargs)
        raise NeedsValuesError("its code depends on the values of a tensor that follows from the input")

    def _recorded(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is _ATEN.index.Tensor:
            args = (args[0], [one for index in args[1] for one in self._positions(index)], *args[2:])
        if func._schema.is_mutable:
            self._promote(func, args, kwargs)
        noted, named = _mapped(self._noted, args), _mapped(self._noted, kwargs)
        self._check(func, args)
        given, bare = _mapped(_without_data, args), _mapped(_without_data, kwargs)
        try:
            result = result_of(func, given, bare)
        except (NotImplementedError, RuntimeError):
            if not func._can_decompose():
                raise
            following, self._following = self._following, None  # at other sizes it may have other parts
            with self:  # they may do without data where torch's code for the whole does not
                result = func.decompose(*args, **kwargs)
            self._following = following
            return result
        node = self._called(func, tuple(noted), named, result)
        if func._schema.is_mutable and (written := self._written_entry(result, args, kwargs)) is not None:
            written.node = node
            return self._resized(func, written, args)
        return self._wrapped(node, result, self._device(args, kwargs))

    def _called(self, func: Any, args: Any, kwargs: Any, result: Any) -> fx.Node:
        named = isinstance(func, torch._ops.OpOverload)
        name = func._schema.name.rpartition("::")[2] if named else _SIZES.get(func)
        node = self.graph.create_node("call_function", func, args, kwargs, name=name)
        # As it is now: an operator in place may change its sizes.
        node.meta |= {"layer": self._layers[-1], "val": _mapped(_detached, result)}
        if self._following and isinstance(result, Tensor):
            self._following.result(node, result)
        return node

    def _wrapped(self, node: fx.Node, result: Any, device: torch.device) -> Any:
        if isinstance(result, Tensor):
            return self._stand_in(result, device, node)
        if not isinstance(result, list | tuple):
            return result
        found = []
        for index, value in enumerate(result):
            item = value
            if isinstance(value, Tensor):
                item = self._wrapped(self._called(operator.getitem, (node, index), {}, value), value, device)
            found.append(item)
        return _like(result, found)

    def _check(self, func: Any, args: Any) -> None:
        if func is _ATEN.unbind.int and args[0].shape[args[1] if len(args) > 1 else 0] % BATCH == 0:
            raise UnsupportedModelError(_ROW_BY_ROW)
        if len(self.graph.nodes) > self._most:
            raise TooManyOperatorsError(f"The network has more than {self._most:,} operators, or {_ROW_BY_ROW}")

    # Operators that write

    def _require_own(self, func: Any, args: Any, kwargs: Any) -> None:
        """Refuse writes into constants that the code has not created itself."""
        for entry in self._written_entries(func, args, kwargs):
            if entry.value is not None and _memory(entry.value) in self._foreign:
                raise UnsupportedModelError(f"{func} changes a tensor that is not part of the network's state_dict")

    def _promote(self, func: Any, args: Any, kwargs: Any) -> None:
        """A constant that is written into is no longer a constant, nor is anything that shares its memory."""
        self._require_own(func, args, kwargs)
        for entry in self._written_entries(func, args, kwargs):
            if entry.value is not None:
                self._replay(entry)
                self._written.add(_memory(entry.value))
                entry.value = None

    def _written_entries(self, func: Any, args: Any, kwargs: Any) -> Iterator[StandIn]:
        given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield from (self._entry(leaf) for leaf in _leaves(given.get(argument.name)) if isinstance(leaf, Tensor))

    def _written_entry(self, result: Any, args: Any, kwargs: Any) -> StandIn | None:
        entries = (self._entry(leaf) for leaf in _leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return next((entry for entry in entries if entry.bare is result), None)

    def _resized(self, func: Any, entry: StandIn, args: Any) -> StandIn:
        """The stand-in after an operator in place, which may have changed its sizes."""
        if torch.Tag.inplace_view in func.tags:
            with torch._C._DisableTorchDispatch():
                func(*args)
            if entry.value is not None:
                entry.bare = torch.empty_strided(entry.shape, entry.stride(), dtype=entry.dtype, device=META)
        return entry

    # Constants

    def _entry(self, tensor: Tensor, foreign: bool = True) -> StandIn:
        """The stand-in of any tensor that the code uses.

        Args:
            foreign: whether it was there before the trace, if it has not been seen yet.
        """
        if isinstance(tensor, StandIn):
            return tensor
        if id(tensor) in self.own:
            return self.own[id(tensor)]
        if id(tensor) not in self._loose:
            if foreign:
                self._foreign.add(_memory(tensor))
            self._loose[id(tensor)] = tensor, self._stand_in(tensor, tensor.device, None, tensor.detach())
        return self._loose[id(tensor)][1]

    def _stand_in(
        self, like: Tensor, device: torch.device, node: fx.Node | None, value: Tensor | None = None, recipe: Any = None
    ) -> StandIn:
        made = StandIn(like, device, node, value, recipe)
        self._watch(made)
        return made

    def _node(self, entry: StandIn) -> fx.Node:
        if entry.node is None:
            if self._known(entry):
                entry.node = self._constant_node(entry)
            else:
                self._replay(entry)
        assert entry.node is not None
        return entry.node

    def _constant_node(self, entry: StandIn) -> fx.Node:
        name = f"_constant_{len(self.constants)}"
        assert entry.value is not None
        self.constants[name] = entry.value.detach().clone()
        node = self.graph.create_node("get_attr", name)
        node.meta |= {"layer": self._layers[-1], "val": entry.bare.detach()}
        self._values[node] = self.constants[name]
        return node

    def _replay(self, entry: StandIn) -> None:
        """Record a constant as the view of another one that it is, since both are written into."""
        if entry.node is not None:
            return
        if entry.recipe is None:
            entry.node = self._constant_node(entry)
            return
        func, args, kwargs = entry.recipe
        for leaf in _leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._replay(self._entry(leaf))
        bare = result_of(func, _mapped(_without_data, args), _mapped(_without_data, kwargs))
        entry.node = self._called(func, tuple(_mapped(self._noted, args)), _mapped(self._noted, kwargs), bare)
        entry.bare = bare

    def _positions(self, index: Tensor | None) -> list[Tensor | None]:
        """An index of bools as the positions where it is true, if they are known; one for each of its dimensions."""
        if index is None or index.dtype is not torch.bool:
            return [index]
        entry = self._entry(index)
        if not self._known(entry):
            node = self._node(entry)
            if not self._own_alone(node):
                raise NeedsValuesError("the number of positions where an index of bools is true depends on the input")
            return [self._stand_in(one, one.device, None, one) for one in self._value(index).nonzero(as_tuple=True)]
        assert entry.value is not None
        return [self._stand_in(one, one.device, None, one) for one in entry.value.nonzero(as_tuple=True)]

    # Values of the network's own tensors

    def _own_alone(self, node: fx.Node) -> bool:
        """Whether a value follows from the network's own tensors and constants."""
        if node.op == "get_attr":
            return True
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload | type(operator.getitem)):
            return False
        if isinstance(node.target, torch._ops.OpOverload):
            if node.target._schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags:
                return False
            if node.target is _ATEN.sym_size.int:
                return False
        return all(map(self._own_alone, node.all_input_nodes))

    def _value(self, tensor: Tensor) -> Any:
        return self._computed_value(self._node(self._entry(tensor)))

    def _computed_value(self, node: fx.Node) -> Any:
        if node not in self._values:
            if node.op == "get_attr":
                self.read.add(str(node.target))
                self._values[node] = self._tensors[str(node.target)].detach()
            else:
                args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), self._computed_value)
                self._values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return self._values[node]

    # Arguments

    def _noted(self, value: Any) -> Any:
        """`value` as an argument in the graph."""
        if isinstance(value, Tensor):
            return self._node(self._entry(value))
        if type(value) is int and self._varies(value):
            return self._size(value)
        # A graph has no generator, and the proof refuses a network that does not repeat itself.
        return None if isinstance(value, torch.Generator) else value

    def _varies(self, value: int) -> bool:
        return self._is_multiple(value) or bool(self._following and self._following.follows(value))

    def _is_multiple(self, value: int) -> bool:
        return value != 0 and any(value % prime == 0 for prime in self._sizes.values())

    def _size(self, value: int) -> fx.Node:
        """A number that follows from sizes that vary, as their product."""
        if self._following and not self._is_multiple(value):
            factors = self._following.factors(value)
            if factors is None:
                return self._on_line(value)
            node, dim, times, by = factors
            size = self._called(_ATEN.sym_size.int, (node, dim), {}, value * by // times)
            product = self._called(operator.mul, (size, self._factor(times)), {}, value * by) if times > 1 else size
            return self._called(operator.floordiv, (product, by), {}, value) if by > 1 else product
        if value not in self._computed:
            prime = next(prime for prime in self._sizes.values() if value % prime == 0)
            if value == prime:
                self._computed[value] = self._called(_ATEN.sym_size.int, self._places[prime], {}, value)
            else:
                rest = value // prime
                self._computed[value] = self._called(operator.mul, (self._size(prime), self._factor(rest)), {}, value)
        return self._computed[value]

    def _on_line(self, value: int) -> fx.Node:
        line = self._following.line(value) if self._following else None
        assert line is not None
        size, times, plus = line
        return self._called(operator.add, (self._size(size * times), plus), {}, value)

    def _factor(self, value: int) -> fx.Node | int:
        return self._size(value) if self._varies(value) or (self._following and self._following.found(value)) else value

    def _device(self, args: Any, kwargs: Any) -> torch.device:
        """Of the result: where the code asks for it, or else where the first operand with dimensions is."""
        leaves = list(_leaves((args, kwargs)))
        asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
        operands = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        found = next((leaf for leaf in operands if leaf.ndim), operands[0] if operands else None)
        return asked or (found.device if found is not None else torch.get_default_device())


@dataclass(frozen=True)
class Sized:
    """A tensor among the inputs; `bare` has the sizes that it is traced with."""

    tensor: Tensor
    bare: Tensor


def _without_data(value: Any) -> Any:
    """`value` as an argument on the device "meta"."""
    if isinstance(value, StandIn):
        return value.bare
    if isinstance(value, Tensor):
        return without_data(value)
    return META if isinstance(value, torch.device) else value


def _is_first_of_packed(node: fx.Node) -> bool:
    """Whether it is the number of sequences that have a first step: all sequences of a batch have one."""
    if node.target is not _ATEN.select.int or node.args[1:] != (0, 0):
        return False
    sizes = node.all_input_nodes[0]
    return sizes.target is operator.getitem and sizes.all_input_nodes[0].target is _ATEN._pack_padded_sequence.default


def _memory(tensor: Tensor) -> Any:
    return tensor.untyped_storage()._cdata


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    else:
        yield value


def _mapped(function: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(function, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return _like(value, [_mapped(function, item) for item in value])
    return function(value)


def _like(value: Any, items: Iterable[Any]) -> Any:
    if hasattr(value, "_fields"):  # a named tuple
        return type(value)(*items)
    return tuple(items) if isinstance(value, tuple) else list(items)
