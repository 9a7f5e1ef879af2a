"""The operators of a network, recorded while it runs once on tensors with sizes and without data.

A run takes some hundredths of a millisecond per operator, since nothing is computed. The batch has `BATCH` rows, a
prime too large for a width: a size that is a multiple of it follows from the batch, and every other one does not.
"""

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

from compress.errors import InputError, UnsupportedModelError
from compress.evaluation_mode import evaluation_mode
from compress.graph.dimensions import BATCH
from compress.graph.network import require_unwrapped
from compress.options import shown

_META = torch.device("meta")
_ATEN = torch.ops.aten
# Finding out that a norm's result is like its input takes torch longer than all the rest of some networks.
_LIKE_THEIR_INPUT = {
    *(_ATEN.batch_norm.default, _ATEN.instance_norm.default, _ATEN.group_norm.default),
    *(_ATEN.layer_norm.default, _ATEN.rms_norm.default),
}
# Without data, torch decomposes them into the operators of every step, and a sequence may have any length.
_RECURRENT = {_ATEN.lstm.input, _ATEN.gru.input, _ATEN.rnn_tanh.input, _ATEN.rnn_relu.input}
# The largest networks have some thousands; a loop over the rows of a batch would never end.
_MOST_OPERATORS = 50_000
_ROW_BY_ROW = "it goes through its batch row by row, so that the trace would hold for one size of the batch"


@dataclass(frozen=True)
class Trace:
    """graph: `placeholder` is the input, `get_attr` a tensor by its name, `call_function` an operator of torch.

    Of an operator's node, `meta["val"]` is the result, without data, and `meta["layer"]` the qualified name of the
    module whose code calls it. Where its arguments contain the size of the batch, a node computes it.
    constants: tensors of the network's code that are not in its state_dict. Those that are belong to the network, so
        that a trace keeps no weights alive.
    """

    graph: fx.Graph
    constants: Mapping[str, Tensor]


def trace(model: nn.Module, example: Tensor, most: int | None = None) -> Trace:
    """Record what `model` does in evaluation mode with a batch of inputs like `example` [N, ...].

    The model is left as it was, even if it keeps something from each pass. The values of `example` don't matter.

    Args:
        most: operators of the network; one with more is refused, early. 50,000 if absent.

    Raises:
        InputError: the network does not run on `example`.
        UnsupportedModelError: its operators depend on values, or on the size of the batch.
    """
    require_unwrapped(model)
    require_example(example)
    fast = torch.backends.mha.get_fastpath_enabled()
    with evaluation_mode(model), torch.inference_mode(), _restored(model):
        torch.backends.mha.set_fastpath_enabled(False)  # its fused operators hide the weights
        try:
            recorder = _Recorder(model, example, most or _MOST_OPERATORS)
            with recorder.following_layers(), recorder:
                result = torch.func.functional_call(model, recorder.bare, (recorder.rows,))
            recorder.finish(result)
        except _TooManyOperatorsError:
            raise
        except Exception as error:
            _run(model, example)
            raise UnsupportedModelError(f"The network cannot be traced without data: {error}") from error
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
    return Trace(recorder.graph, recorder.constants)


def require_example(example: object) -> None:
    """Raise InputError unless it is an input [N, ...] of a network."""
    if not isinstance(example, Tensor):
        raise InputError(f"example: found {shown(example)}; expected a tensor [N, ...] that the network runs on")
    if example.ndim == 0 or example.shape[0] == 0:
        raise InputError(f"example: its shape is {list(example.shape)}; it needs a batch dimension with a row")


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by qualified name; a tied tensor has all of its names."""
    parameters, buffers = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    return {**dict(parameters), **dict(buffers)}


def _run(model: nn.Module, example: Tensor) -> None:
    rows = torch.cat([example[:2], example[:2]])[:2]
    try:
        model(rows)
    except Exception as error:
        raise InputError(f"The network does not run on an example of shape {list(rows.shape)}: {error}") from error


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Some modules keep a tensor from a forward pass, such as a table of positions; one without data is of no use."""
    before = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for attributes, old in before:
            attributes.clear()
            attributes.update(old)


class _TooManyOperatorsError(UnsupportedModelError):
    """Raised early, since running the network further shows nothing new."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operators arrive here as they are called, `linear` and not its parts, since inference mode has no autograd."""

    def __init__(self, model: nn.Module, example: Tensor, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most = most
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.rows = torch.empty(BATCH, *example.shape[1:], dtype=example.dtype, device=_META)
        self._device = example.device
        self._layers = [""]
        self._paths = {module: name for name, module in model.named_modules()}
        # By identity: the node, and the stand-in. All are kept alive, so that no other tensor gets their identity.
        self._known: dict[int, tuple[fx.Node, Tensor]] = {}
        self._others: dict[fx.Node, Tensor] = {}
        self._batches: dict[int, fx.Node] = {}
        self._input = self.graph.placeholder("input")
        self._remember(self._input, self.rows)
        self.bare = {name: self._stand_in(name, tensor) for name, tensor in tensors_of(model).items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        noted = [self._noted(value) for value in args], {key: self._noted(value) for key, value in kwargs.items()}
        given = [self._without_data(value) for value in args]
        self._check(func, noted[0], given)
        named = {key: self._without_data(value) for key, value in kwargs.items()}
        result = _result(func, given, named)
        name = func._schema.name.rpartition("::")[2]
        node = self.graph.create_node("call_function", func, tuple(noted[0]), noted[1], name=name)
        self._remember(node, result)
        return result

    def finish(self, result: Any) -> None:
        self.graph.output(self._output(result))

    def _output(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._node(value)[0]
        if isinstance(value, list | tuple | dict):
            return _mapped(self._output, value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise UnsupportedModelError(
            f"it returns a {type(value).__name__}; let it return tensors in tuples, lists or dicts"
        )

    @contextmanager
    def following_layers(self) -> Iterator[None]:
        """Know at every operator which module's code calls it."""

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

    def _check(self, func: Any, noted: list[Any], given: list[Any]) -> None:
        if func is _ATEN.unbind.int and given[0].shape[given[1] if len(given) > 1 else 0] % BATCH == 0:
            raise UnsupportedModelError(_ROW_BY_ROW)
        if len(self.graph.nodes) > self._most:
            raise _TooManyOperatorsError(f"The network has more than {self._most:,} operators, or {_ROW_BY_ROW}")
        if func._schema.is_mutable and noted and isinstance(noted[0], fx.Node) and noted[0] in self._others:
            raise UnsupportedModelError(f"{func} changes a tensor that is not part of the network's state_dict")

    def _noted(self, value: Any) -> Any:
        """`value` as an argument in the graph."""
        if isinstance(value, Tensor):
            return self._node(value)[0]
        if type(value) is int and value and value % BATCH == 0:
            return self._batch(value // BATCH)
        if isinstance(value, torch.device) and value.type == "meta":
            return self._device
        if isinstance(value, list | tuple | dict):
            return _mapped(self._noted, value)
        return value

    def _without_data(self, value: Any) -> Any:
        """`value` as an argument in this run."""
        if isinstance(value, Tensor):
            return self._node(value)[1]
        if isinstance(value, torch.device):
            return _META
        return [self._without_data(item) for item in value] if isinstance(value, list | tuple) else value

    def _node(self, tensor: Tensor) -> tuple[fx.Node, Tensor]:
        if id(tensor) not in self._known and tensor.is_meta:
            return self._same_data(tensor)
        if id(tensor) not in self._known:  # of the code's own
            name = f"_constant_{len(self._others)}"
            with torch.inference_mode(False):  # else it could never take part in training
                self.constants[name] = tensor.clone() if tensor.is_inference() else tensor
            self._stand_in(name, tensor)
            self._others[self._known[id(tensor)][0]] = tensor
        return self._known[id(tensor)]

    def _same_data(self, tensor: Tensor) -> tuple[fx.Node, Tensor]:
        """Of a tensor that no operator has made, as the attribute `data` of another."""
        for node, known in reversed(self._known.values()):
            if _memory(known) == _memory(tensor):
                return node, tensor
        raise UnsupportedModelError("it uses a tensor that none of torch's operators has made")

    def _stand_in(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor without data, which stands in for `tensor` from now on."""
        if id(tensor) in self._known:
            return self._known[id(tensor)][1]
        if any(size and size % BATCH == 0 for size in tensor.shape):
            raise UnsupportedModelError(f"{name!r} has the shape {list(tensor.shape)}; {BATCH} is kept for the batch")
        bare = torch.empty_like(tensor, device=_META)
        node = self.graph.create_node("get_attr", name)
        self._remember(node, bare)
        self._known[id(tensor)] = self._known[id(bare)]
        return bare

    def _batch(self, times: int) -> fx.Node:
        """The size of the batch, times a number."""
        if times not in self._batches:
            if times == 1:
                node = self.graph.call_function(_ATEN.sym_size.int, (self._input, 0))
            else:
                node = self.graph.call_function(operator.mul, (self._batch(1), times))
            self._batches[times] = node
            self._remember(node, times * BATCH)
        return self._batches[times]

    def _remember(self, node: fx.Node, result: Any) -> None:
        node.meta["layer"] = self._layers[-1]
        if isinstance(result, list | tuple):
            node.meta["val"] = [value.detach() if isinstance(value, Tensor) else value for value in result]
            for index, value in enumerate(result):
                if isinstance(value, Tensor):
                    self._remember(self.graph.call_function(operator.getitem, (node, index)), value)
            return
        node.meta["val"] = result
        if isinstance(result, Tensor):
            node.meta["val"] = result.detach()  # as it is now: an operator in place may change its sizes
            self._known[id(result)] = (node, result)


def _result(func: Any, given: list[Any], named: dict[str, Any]) -> Any:
    """The result of an operator for tensors without data."""
    if func in _LIKE_THEIR_INPUT:
        return torch.empty_like(given[0])
    if func in _RECURRENT:
        inputs, state, bidirectional = given[0], given[1], given[7]
        last = state[0] if isinstance(state, list) else state
        outputs = inputs.new_empty(*inputs.shape[:-1], last.shape[-1] * (2 if bidirectional else 1))
        return outputs, *map(torch.empty_like, state if isinstance(state, list) else [state])
    return func(*given, **named)


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)


def _mapped(function: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: function(item) for key, item in value.items()}
    return (tuple if isinstance(value, tuple) else list)(map(function, value))
