"""`SlimGraph`: a slim network as a graph, which refuses inputs for which it does not hold."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import reduce_graph_module
from torch.utils._pytree import keystr, tree_flatten_with_path

from compress.dynamic import BATCH_NAME
from compress.errors import InputError
from compress.options import shown
from compress.run_warnings import RunWarning
from compress.wording import count_of

Size = int | str
Expected = tuple[tuple[Size, ...], torch.dtype]
"""Shape and dtype of a tensor; a size that varies has a name, "N" for the batch."""

_ELSEWHERE = "slim again with an example of this size, or let it vary: slim(..., dynamic=...)"


class SlimGraphWarning(RunWarning):
    """A slim network is a graph, with limits; or `train()` was called on one, which has no effect."""

    kind = "traced_graph"


class SlimGraph(fx.GraphModule):
    """A slim network as a traced graph of operators, with the names of the network's own tensors.

    `slim` returns one if the network's class cannot run at the smaller widths, or without a branch. It computes the
    same, with limits:

    - Its inputs have the example's sizes, except the batch and the dimensions named in `dynamic`; other sizes raise
      InputError (see `fixed_sizes`).
    - It always computes as in evaluation mode: norms use their running statistics and dropout does nothing, even after
      `train()`.
    - It has no custom gradients (autograd functions, code under `no_grad`); if the network has any, the graph's
      backward pass raises InputError.
    """

    @property
    def fixed_sizes(self) -> dict[str, tuple[Size, ...]]:
        """The shape of every input tensor by name: numbers are fixed; a name, as "N" for the batch, is any size."""
        return {name: spec[0] for name, spec in _expected(self.graph).items() if _of_tensor(spec)}

    @property
    def limits(self) -> str:
        """The limits of the graph, as a sentence."""
        return limits(self.fixed_sizes)

    @property
    def lost_gradients(self) -> str | None:
        """Why the backward pass is refused; None if it is not."""
        return next((str(node.args[1]) for node in self.graph.nodes if node.target is refuse_backward), None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        names = list(_expected_arguments(self.graph))
        unknown = [*map(str, range(len(names), len(args))), *(name for name in kwargs if name not in names)]
        if unknown or set(names[: len(args)]) & set(kwargs):
            raise InputError(
                f"The slim graph takes {', '.join(names)}; found {count_of(len(args), 'argument')}"
                + (f" and {', '.join(kwargs)}" if kwargs else "")
            )
        return super().__call__(*args, **kwargs)

    def train(self, mode: bool = True) -> "SlimGraph":
        if mode and not self.training:
            warnings.warn(
                "This slim network is a graph, which computes as in evaluation mode even in training: norms keep their "
                "running statistics, and dropout does nothing. To train it as its class does, retrain the masked "
                "network and slim it afterwards.",
                SlimGraphWarning,
                stacklevel=2,
            )
        super().train(mode)
        return self

    def _get_name(self) -> str:
        return "SlimGraph"

    def extra_repr(self) -> str:
        return f"a traced graph, in evaluation mode, for {_shown(self.fixed_sizes)}"

    def __str__(self) -> str:
        return repr(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SlimGraph":
        copied: SlimGraph = super().__deepcopy__(memo)  # type: ignore[assignment]
        _keep_edits(vars(self), copied)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled, super().__reduce__()[1])


def limits(shapes: Mapping[str, Sequence[Size]]) -> str:
    """The limits of a graph for inputs of these shapes, as a sentence."""
    return (
        f"The slim network is a traced graph, since its class cannot run in this shape: it takes "
        f"{_shown(shapes)} and no other size, computes as in evaluation mode, and has no custom gradients."
    )


def warn_of_graph(network: nn.Module) -> None:
    """Warn of the limits of a slim network, if it is a graph."""
    if isinstance(network, SlimGraph):
        warnings.warn(network.limits, SlimGraphWarning, stacklevel=2)


def slim_graph(tensors: Mapping[str, Tensor], graph: fx.Graph, sizes: Mapping[str, int]) -> SlimGraph:
    """The graph as a module on its `tensors`, with the check of its inputs.

    Args:
        sizes: the primes that represent varying sizes, by name; the batch is "batch".
    """
    places = [node for node in graph.nodes if node.op == "placeholder"]
    for node in places:
        node.args = (None,)  # what is missing is found by the check
    expected = {
        name: (tuple(_size(size, sizes) for size in leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf
        for name, leaf in _leaves({str(node.target): node.meta["val"] for node in places}).items()
        if isinstance(leaf, Tensor | bool | int | float | str | None)
    }
    with graph.inserting_after(places[-1]):
        graph.call_function(require_inputs, ({str(node.target): node for node in places}, expected))
    return SlimGraph({**tensors}, graph)


def refuse_gradients(module: SlimGraph, why: str) -> None:
    """Let the backward pass through the outputs raise InputError."""
    if module.lost_gradients is None:
        output = next(node for node in module.graph.nodes if node.op == "output")
        with module.graph.inserting_before(output):
            for node in dict.fromkeys(output.all_input_nodes):
                module.graph.call_function(refuse_backward, (node, why))
        module.recompile()


def require_inputs(arguments: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """A node of every slim graph: raise InputError unless the inputs are those that the graph holds for."""
    if (proxy := _proxy(arguments.values())) is not None:
        proxy.tracer.create_proxy("call_function", require_inputs, (arguments, expected), {})
        return
    found = _leaves(arguments)
    varying: dict[str, int] = {}
    for name, wanted in expected.items():
        value = found.get(name)
        if not _of_tensor(wanted):
            if isinstance(value, Tensor) or value != wanted:
                raise InputError(f"{name}: found {shown(value)}; the slim graph holds for {wanted!r}")
            continue
        shape, dtype = wanted
        holds = f"the slim graph holds for [{', '.join(map(str, shape))}]"
        if not isinstance(value, Tensor):
            raise InputError(f"{name}: found {shown(value)}; {holds}")
        exact = dtype.is_floating_point and value.dtype == torch.get_default_dtype() == torch.float64  # in the proof
        if value.dtype != dtype and not exact:
            raise InputError(f"{name}: found {value.dtype}; the slim graph holds for {dtype}")
        if len(value.shape) != len(shape):
            raise InputError(f"{name}: found {list(value.shape)}; {holds}")
        for size, want in zip(value.shape, shape, strict=True):
            known = varying.setdefault(want, size) if isinstance(want, str) else want
            if size != known:
                where = f", {want} = {known}" if isinstance(want, str) else ""
                raise InputError(f"{name}: found {list(value.shape)}; {holds}{where}; {_ELSEWHERE}")
    if extra := [name for name in found if name not in expected and isinstance(found[name], Tensor)]:
        raise InputError(f"{extra[0]}: found a tensor; the slim graph takes {', '.join(expected)}")


def refuse_backward(output: object, why: str) -> None:
    """A node of a graph without the network's custom gradients."""
    if isinstance(output, fx.Proxy):
        output.tracer.create_proxy("call_function", refuse_backward, (output, why), {})
    elif isinstance(output, Tensor) and output.requires_grad and not torch.compiler.is_compiling():

        def refuse(gradient: Tensor) -> None:
            raise InputError(why)

        output.register_hook(refuse)  # type: ignore[no-untyped-call]


# Else torch takes nodes without a result for dead code.
fx.node.has_side_effect(require_inputs)
fx.node.has_side_effect(refuse_backward)


def _expected(graph: fx.Graph) -> Mapping[str, Any]:
    checks: Sequence[fx.Node] = [node for node in graph.nodes if node.target is require_inputs]
    return dict(checks[0].args[1]) if checks else {}  # type: ignore[arg-type]


def _expected_arguments(graph: fx.Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op == "placeholder"]


def _shown(shapes: Mapping[str, Sequence[Size]]) -> str:
    return ", ".join(f"{name} [{', '.join(map(str, shape))}]" for name, shape in shapes.items())


def _of_tensor(spec: object) -> bool:
    return isinstance(spec, tuple | list)


def _size(size: int, sizes: Mapping[str, int]) -> Size:
    """The name of a size that varies, N for the batch."""
    names = {prime: "N" if name == BATCH_NAME else name for name, prime in sizes.items()}
    return names.get(size, size)


def _leaves(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the arguments, however nested, by name."""
    paths = tree_flatten_with_path(dict(arguments))[0]
    return {"_".join(keystr((key,)).strip("[].'\"") for key in path): leaf for path, leaf in paths}


def _proxy(values: Any) -> fx.Proxy | None:
    """Of an input, while torch.fx traces the graph or reads it from a pickle."""
    return next((value for value in values if isinstance(value, fx.Proxy)), None)


def _keep_edits(source: Mapping[str, Any], module: fx.GraphModule) -> None:
    if "shape_edits" in source:
        module.shape_edits = copy.copy(source["shape_edits"])


def _unpickled(body: dict[str, Any], import_block: str) -> SlimGraph:
    plain: Any = reduce_graph_module(body, import_block)
    module = SlimGraph(plain, plain.graph)
    _keep_edits(body, module)
    return module
