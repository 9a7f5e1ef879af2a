"""Skeletonization: how much the error depends on each node.

Mozer & Smolensky, "Skeletonization: a technique for trimming the fat from a network via relevance assessment", 1988.
Each node's output is multiplied by a factor a = 1; its saliency is the derivative dE/da (paper, eq. 2-3). With a
factor of its own for every sample, one forward and one backward pass give all nodes of all layers at once.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compress.batches import Pairs, pairs
from compress.errors import InputError, TargetError
from compress.evaluation_mode import evaluation_mode
from compress.inputs import Inputs
from compress.tasks import Loss
from compress.wording import did_you_mean

Reduce = Literal["sum", "abs", "square"]

_TERMS: dict[Reduce, Callable[[Tensor], Tensor]] = {"sum": torch.positive, "abs": torch.abs, "square": torch.square}

# The axis of a layer's output along which its nodes lie; transposed convolutions are convolutions here.
_NODES_ALONG = {nn.Linear: -1, nn.modules.conv._ConvNd: 1}


def skeletonization(
    model: nn.Module,
    layers: Sequence[str],
    batches: Pairs,
    loss: Loss,
    *,
    reduce: Reduce = "square",
) -> dict[str, Tensor]:
    """Saliency of every node of the given layers, the mean over all scoring samples.

    Args:
        layers: qualified names of Linear or Conv layers; their outputs are the nodes.
        batches: (input, target) pairs, or what else `compress.batches.pairs` takes.
        loss: (output, target) -> mean error E over the batch: the training loss, or `compress.tasks.linear.linear`.
        reduce: with d = dE/da of one sample: "sum" |mean d| (the paper), "abs" mean |d|, "square" mean d**2 (the
            Fisher information of the factor).

    Returns:
        For each layer a float64 tensor [nodes], larger = keep.

    Raises:
        TargetError: a layer that does not exist, is not a Linear or Conv, or is not used in the forward pass.
        InputError: no scoring data.
    """
    modules = {name: layer_with_nodes(model, name) for name in layers}
    sums: dict[str, Tensor] = {}
    samples = 0
    for given, target in pairs(batches, model):
        for name, slope in _slopes(model, modules, given, target, loss).items():
            term = _TERMS[reduce](slope)
            total = term.sum(0, dtype=torch.promote_types(term.dtype, torch.float32)).double()
            sums[name] = sums[name] + total if name in sums else total
        samples += given.rows
    if not samples:
        raise InputError("skeletonization was given no scoring data")
    return {name: total.abs() / samples for name, total in sums.items()}


def _slopes(
    model: nn.Module, modules: dict[str, nn.Module], given: Inputs, target: Any, measure: Loss
) -> dict[str, Tensor]:
    """dE/da for each sample and node, [batch, nodes] per layer; E of a sample as if it were alone.

    The factor itself is not applied: dE/da is the layer's output times the slope dE/d(output), summed over positions.
    """
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in modules}

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
            # A probe rather than the output itself, which an in-place activation would overwrite.
            probe = output.new_zeros(()).expand_as(output).requires_grad_()
            calls[name].append((output.detach(), probe))
            return output + probe

        return hook

    with evaluation_mode(model, gradients=True), ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        total = measure(given.call(model), target) * given.rows
        unused = [name for name in modules if not calls[name]]
        if unused:
            raise TargetError(f"layer {unused[0]!r} is not used in the forward pass: its nodes have no saliency")
        probes = [probe for seen in calls.values() for _, probe in seen]
        found = iter(torch.autograd.grad(total, probes, materialize_grads=True))
    return {
        name: functools.reduce(torch.add, [_per_node(output * next(found), modules[name]) for output, _ in seen])
        for name, seen in calls.items()
    }


def _per_node(values: Tensor, module: nn.Module) -> Tensor:
    """[batch, nodes], added up over the positions."""
    return values if values.dim() == 2 else values.movedim(nodes_along(module), 1).flatten(2).sum(2)


def nodes_along(module: nn.Module) -> int:
    """The axis of a layer's output, and of its input, along which nodes lie."""
    return next(axis for kind, axis in _NODES_ALONG.items() if isinstance(module, kind))


def layer_with_nodes(model: nn.Module, name: str) -> nn.Module:
    """The Linear or Conv layer `name`; raises TargetError where it is not one."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        known = [path for path, found in model.named_modules() if isinstance(found, tuple(_NODES_ALONG))]
        near = did_you_mean(name, known)
        raise TargetError(f"there is no layer {name!r}; layers with nodes are {', '.join(known)}{near}") from None
    if not isinstance(module, tuple(_NODES_ALONG)):
        raise TargetError(f"{name!r} is a {type(module).__name__}: nodes are the outputs of a Linear or Conv layer")
    return module
