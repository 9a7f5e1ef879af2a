"""What a network returns: the tensor that tasks compare, the network's own loss, and its numbers in float64."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from compress.errors import InputError


def prediction(output: object) -> Tensor:
    """The tensor of an output that built-in tasks compare with the target.

    It is the output itself; or its `logits`; or else the first tensor in it that is not a single number, as a loss is.

    Raises:
        InputError: there is none.
    """
    if isinstance(output, Tensor):
        return output
    logits = entry(output, "logits")
    if isinstance(logits, Tensor):
        return logits
    for leaf in _leaves(output):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf
    raise InputError(f"The network returns {type(output).__name__} without a tensor [N, ...] in it")


def own_loss(output: object, target: object) -> Tensor:
    """The loss that the network has computed itself: the output's `loss`, or the only single number in it.

    Raises:
        InputError: there is none.
    """
    found = entry(output, "loss")
    if isinstance(found, Tensor):
        return found
    numbers = [leaf for leaf in _leaves(output) if isinstance(leaf, Tensor) and not leaf.ndim]
    if len(numbers) == 1 and not isinstance(output, Tensor):
        return numbers[0]
    raise InputError(
        f"the network's output, {type(output).__name__}, has no loss of its own; give its labels in the batches, or "
        "loss=..., a function of (output, target)"
    )


def in_float64(output: Any) -> Any:
    """The output with its numbers in float64, in containers that torch knows: means then agree at all batch sizes."""
    if isinstance(output, Tensor):
        return output.double()
    return tree_map_only(Tensor, lambda found: found.double() if found.is_floating_point() else found, output)


def entry(output: object, name: str) -> object:
    """The entry of a dict, or the attribute of another object; None if there is none."""
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _leaves(output: object) -> list[object]:
    """What is nested in containers that torch knows, or else in an object's attributes."""
    leaves = tree_leaves(output)
    known = len(leaves) != 1 or leaves[0] is not output
    return leaves if known else tree_leaves(list(getattr(output, "__dict__", {}).values()))
