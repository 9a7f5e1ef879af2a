"""Whether a slim graph has the network's gradients: its operators are known, and what the network made of their
gradients is not, as a straight-through estimator, `no_grad` or `.data` do."""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_leaves

from compress.errors import InputError
from compress.evaluation_mode import evaluation_mode
from compress.inputs import Inputs

_CLOSE, _NOISE = 0.01, 1e-4
"""Of a gradient's largest entry; and of the largest entry of all."""

WAY_OUT = (
    "Retrain the masked network and slim it again, or let the graph train without them: "
    'slim(..., custom_gradients="drop")'
)


def lost_gradients(
    model: nn.Module, small: nn.Module, kept: Mapping[tuple[str, int], Tensor], given: Inputs
) -> str | None:
    """Why `small` must not be trained in place of `model`; None if their gradients agree.

    Both run forward and backward once, in evaluation mode, on copies.

    Args:
        kept: the positions that are left of a (tensor, dimension).
    """
    try:
        expected, functions = _gradients(model, given)
    except InputError as error:  # a slim graph that refuses it already
        return str(error)
    except Exception:  # a network without a backward pass is not trained
        return None
    found, _ = _gradients(small, given)
    for (name, dim), positions in kept.items():
        if name in expected:
            expected[name] = expected[name].index_select(dim, positions.to(expected[name].device))
    largest = max((float(gradient.abs().max()) for gradient in expected.values() if gradient.numel()), default=0.0)
    for name, gradient in found.items():
        own = expected.get(name)
        if own is not None and not _agree(own, gradient, largest):
            made_by = f", as the autograd function {', '.join(sorted(functions))}" if functions else ""
            return (
                f"The slim graph lacks the custom gradients of the network{made_by}: that of {name!r} is another one. "
                f"{WAY_OUT}."
            )
    return None


def _agree(one: Tensor, other: Tensor, largest: float) -> bool:
    scale = float(one.abs().max()) if one.numel() else 0.0
    allowed = max(_CLOSE * scale, _NOISE * largest)
    return not one.numel() or float((one - other).abs().max()) <= allowed


def _gradients(model: nn.Module, given: Inputs) -> tuple[dict[str, Tensor], set[str]]:
    """The gradient of every parameter, for the same sum of random multiples of the outputs; and autograd functions."""
    network = copy.deepcopy(model)
    parameters = {name: one for name, one in network.named_parameters() if one.is_floating_point()}
    for parameter in parameters.values():
        parameter.requires_grad_()
    with evaluation_mode(network, gradients=True):
        outputs = [leaf for leaf in tree_leaves(given.mapped(Tensor.clone).call(network)) if isinstance(leaf, Tensor)]
    outputs = [output for output in outputs if output.requires_grad]
    if not outputs:
        return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}, set()
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    found = torch.autograd.grad(outputs, list(parameters.values()), weights, allow_unused=True)
    pairs = zip(parameters.items(), found, strict=True)
    gradients = {name: torch.zeros_like(own) if one is None else one.detach() for (name, own), one in pairs}
    return gradients, _functions(output.grad_fn for output in outputs)


def _functions(ends: Iterable[object]) -> set[str]:
    """The autograd functions, other than torch's own, that the outputs have come through."""
    names, seen, todo = set(), set(), list(ends)
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(node, "_forward_cls", None) if isinstance(node, BackwardCFunction) else None
        if function is not None and not function.__module__.startswith("torch."):
            names.add(function.__name__)
        todo += [following for following, _ in getattr(node, "next_functions", ())]
    return names
