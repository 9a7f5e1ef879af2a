"""Whether a slim graph has the network's gradients.

A graph has the network's operators, but not its changes of their gradients, such as a straight-through estimator,
`no_grad` or `.data`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_leaves

from compress.evaluation_mode import evaluation_mode
from compress.graph.twin import twin
from compress.inputs import Inputs
from compress.proof.precision import InFloat64
from compress.slimming.slim_graph import SlimGraph

_CLOSE, _NOISE = 0.01, 1e-4
"""Relative to a gradient's largest entry; and to the largest entry of all."""

_CUSTOM = "function "

WAY_OUT = (
    "Retrain the masked network and slim it again, or let the graph train without them: "
    'slim(..., custom_gradients="drop")'
)


def lost_gradients(
    model: nn.Module, small: nn.Module, kept: Mapping[tuple[str, int], Tensor], given: Inputs
) -> str | None:
    """Why `small` must not be trained in place of `model`; None if their gradients agree.

    Both run forward in evaluation mode, with the gradients of all parameters. If autograd has recorded the same
    operators, the gradients are the same. Otherwise both run backward and the gradients are compared, in float64 if
    necessary: a maximum may select either of two numbers that differ by rounding. Hooks that change a gradient are not
    detected.

    Args:
        kept: the remaining positions of each (tensor, dimension).
    """
    if isinstance(model, SlimGraph) and model.lost_gradients:
        return model.lost_gradients
    try:
        network, own = _with_gradients(model, given)
    except Exception:  # a network without a backward pass is not trained
        return None
    graph, found = _with_gradients(small, given)
    operators = _operators(own)
    if operators == _operators(found):
        return None
    try:
        expected = _gradients(network, own)
    except Exception:
        return None
    differs = _difference(expected, _gradients(graph, found), kept)
    if differs:
        with suppress(Exception):  # it may have no float64
            one, other = (_gradients(*_in_float64(network, given)) for network in (model, small))
            differs = _difference(one, other, kept)
    if not differs:
        return None
    functions = sorted(name for name in operators if name.startswith(_CUSTOM))
    made_by = f", as the autograd function {', '.join(functions)}".replace(_CUSTOM, "") if functions else ""
    return (
        f"The slim graph lacks the custom gradients of the network{made_by}: that of {differs!r} is another one. "
        f"{WAY_OUT}."
    )


def _difference(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], kept: Mapping[tuple[str, int], Tensor]
) -> str | None:
    """The first parameter whose gradient in the slim graph differs from the kept part of the network's."""
    expected = dict(expected)
    for (name, dim), positions in kept.items():
        if name in expected:
            expected[name] = expected[name].index_select(dim, positions.to(expected[name].device))
    largest = max((float(gradient.abs().max()) for gradient in expected.values() if gradient.numel()), default=0.0)
    names = (name for name in found if name in expected)
    return next((name for name in names if not _agree(expected[name], found[name], largest)), None)


def _agree(one: Tensor, other: Tensor, largest: float) -> bool:
    scale = float(one.abs().max()) if one.numel() else 0.0
    allowed = max(_CLOSE * scale, _NOISE * largest)
    return not one.numel() or float((one - other).abs().max()) <= allowed


def _with_gradients(model: nn.Module, given: Inputs) -> tuple[dict[str, Tensor], list[Tensor]]:
    """(parameters, outputs that depend on them) of a network with the tensors of `model`, which does not change."""
    parameters = {name: one for name, one in model.named_parameters() if one.is_floating_point()}
    stand_ins: dict[str, Tensor] = {name: nn.Parameter(one.detach()) for name, one in parameters.items()}
    if isinstance(model, SlimGraph):  # it keeps nothing from a pass
        with evaluation_mode(model, gradients=True):
            output = torch.func.functional_call(model, stand_ins, tuple(given.args), dict(given.kwargs))
    else:
        network = twin(model, {one: stand_ins[name] for name, one in parameters.items()})
        with evaluation_mode(network, gradients=True):
            output = given.mapped(Tensor.clone).call(network)
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return stand_ins, [leaf for leaf in leaves if leaf.requires_grad]


def _in_float64(model: nn.Module, given: Inputs) -> tuple[dict[str, Tensor], list[Tensor]]:
    """As `_with_gradients`, in float64."""
    exact = InFloat64(model)
    parameters = {
        name: one.requires_grad_() for name, one in exact.module.named_parameters() if one.is_floating_point()
    }
    with evaluation_mode(exact.module, gradients=True):
        output = exact(given.mapped(Tensor.clone))
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return {**parameters}, [leaf for leaf in leaves if leaf.requires_grad]


def _gradients(parameters: Mapping[str, Tensor], outputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The gradient of every parameter for one sum of the outputs with the same random factors."""
    if not outputs:
        return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    found = torch.autograd.grad(outputs, list(parameters.values()), weights, allow_unused=True)
    pairs = zip(parameters.items(), found, strict=True)
    return {name: torch.zeros_like(own) if one is None else one.detach() for (name, own), one in pairs}


def _operators(outputs: Iterable[Tensor]) -> Counter[str]:
    """The names of the operators that autograd has recorded; functions other than torch's own are marked."""
    names: Counter[str] = Counter()
    seen: set[object] = set()
    todo: list[object] = [output.grad_fn for output in outputs]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(node, "_forward_cls", None) if isinstance(node, BackwardCFunction) else None
        custom = function is not None and not function.__module__.startswith("torch.")
        names[f"{_CUSTOM}{function.__name__}" if custom else type(node).__name__] += 1  # type: ignore[union-attr]
        todo += [following for following, _ in getattr(node, "next_functions", ())]
    return names
