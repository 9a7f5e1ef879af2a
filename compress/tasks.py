"""The tasks that networks are trained for, with their losses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from compress.errors import DataError, InputError

Loss = Callable[[Any, Any], Tensor]
"""(output, target) -> scalar, a mean over the samples of the batch. The output is whatever the network returns."""


@dataclass(frozen=True)
class OwnTask:
    """A loss and metrics of the user's own.

    target: what samples in memory or in files are compared with, their labels or the inputs themselves; loaders
        decide for themselves.
    """

    loss: Loss
    metrics: Mapping[str, Loss] = field(default_factory=dict)
    target: Literal["label", "image"] = "label"


Word = Literal["reconstruct", "classify", "multilabel", "regress", "forecast", "language_model", "anomaly"]
"""The tasks that this package knows by name."""

Task = Word | OwnTask


def wants_inputs(task: Task) -> bool:
    """Whether the output is compared with the input itself, or else with a target that the data set has."""
    return task.target == "image" if isinstance(task, OwnTask) else task in ("reconstruct", "anomaly")


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


def squared_error(output: object, image: Tensor) -> Tensor:
    """Mean squared error per pixel, of the output's prediction and `image` [N, C, H, W]; a scalar.

    Raises InputError where the shapes differ, which torch would broadcast into a meaningless figure.
    """
    output = prediction(output)
    _require_target(image)
    if output.shape != image.shape:
        raise InputError(
            f"The model's output has the shape {list(output.shape)} and the images to reconstruct "
            f"{list(image.shape)}; let the model end in that shape (nn.Unflatten)."
        )
    return F.mse_loss(output, image)


def cross_entropy(output: object, labels: Tensor) -> Tensor:
    """Mean cross entropy in nats, of the output's prediction [N, classes] (no softmax before it) and `labels` [N].

    Raises DataError where a label is negative, or not below the number of logits.
    """
    logits = prediction(output)
    _require_target(labels)
    try:
        return F.cross_entropy(logits, labels)
    except IndexError as error:
        raise DataError(
            f"The labels reach from {int(labels.min())} to {int(labels.max())}, and the model has only the classes 0 "
            f"to {logits.shape[1] - 1}; give it as many classes as the data set, which count from 0."
        ) from error


def _require_target(target: object) -> None:
    if not isinstance(target, Tensor):
        found = "no target" if target is None else f"targets of {type(target).__name__}"
        raise DataError(
            f'The batches have {found}, and the task needs a tensor: give pairs (input, target), or "labels" in dicts.'
        )


def loss(task: Task) -> Loss:
    """The function (output, target) -> scalar that `task` minimises, a mean over the samples of the batch."""
    if isinstance(task, OwnTask):
        return task.loss
    return _LOSSES[task]


def _error_of_input(output: object, target: object) -> Tensor:
    """`squared_error` against the input, which is the target or, beside the labels of anomalies, in it."""
    return squared_error(output, target["input"] if isinstance(target, Mapping) else target)  # type: ignore[arg-type]


def _binary_cross_entropy(output: object, labels: Tensor) -> Tensor:
    """Mean binary cross entropy in nats, of the output's prediction and `labels`, 0 or 1, both [N, labels]."""
    return F.binary_cross_entropy_with_logits(prediction(output), labels.to(prediction(output).dtype))


def _next_token(output: object, tokens: Tensor) -> Tensor:
    """Mean cross entropy in nats a token, of the prediction [N, T, tokens] and the tokens [N, T] that follow.

    A target of -100 is not counted.
    """
    logits = prediction(output)
    return F.cross_entropy(logits.flatten(0, -2), tokens.flatten())


_LOSSES: Mapping[Word, Loss] = {
    "reconstruct": squared_error,
    "classify": cross_entropy,
    "multilabel": _binary_cross_entropy,
    "regress": squared_error,
    "forecast": squared_error,
    "language_model": _next_token,
    "anomaly": _error_of_input,
}
