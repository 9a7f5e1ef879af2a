"""Finds the first NaN or infinity: in the data, in the weights, or in the output of a layer."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.inputs import Inputs

BATCH = ("the inputs of the batch are", "the targets of the batch are")
"""The answers of `first_broken` for data."""


def broken_weights(model: nn.Module) -> list[str]:
    """The parameters that hold NaN or an infinity, by the names that they have without masks."""
    return [name.removesuffix("_orig") for name, found in model.named_parameters() if not found.isfinite().all()]


def first_broken(model: nn.Module, given: Inputs, target: object) -> str | None:
    """The first part that is not finite: one of `BATCH`, weights, or the output of a layer; None if all are.

    In words that "not finite" can follow.

    It runs the model on the batch once more, in its present mode, which may draw random numbers.
    """
    for what, tensors in zip(BATCH, (given.tensors, _tensors(target)), strict=True):
        if not _finite(tensors):
            return what
    broken = listed(broken_weights(model))
    return f"{broken} had become" if broken else _first_layer(model, given)


def listed(names: Sequence[str]) -> str | None:
    """ "a", "a and 3 more", or None."""
    return (names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")) if names else None


@torch.no_grad()
def _first_layer(model: nn.Module, given: Inputs) -> str | None:
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if not found and not _finite(_tensors(output)):
                found.append(f"the output of {name or 'the network'} ({type(module).__name__}) is")

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules()]
    try:
        given.call(model)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _tensors(value: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
