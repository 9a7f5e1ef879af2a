"""The tasks that networks are trained for, with their losses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from compress.errors import DataError, InputError

Loss = Callable[[Tensor, Tensor], Tensor]
"""(output, target) -> scalar, a mean over the samples of the batch."""


@dataclass(frozen=True)
class OwnTask:
    """A loss and metrics of the user's own.

    target: what images in memory or in folders are compared with; loaders decide for themselves.
    """

    loss: Loss
    metrics: Mapping[str, Loss] = field(default_factory=dict)
    target: Literal["label", "image"] = "label"


Task = Literal["reconstruct", "classify"] | OwnTask


def wants_images(task: Task) -> bool:
    """Whether the targets are the images themselves, or else their labels."""
    return task.target == "image" if isinstance(task, OwnTask) else task == "reconstruct"


def squared_error(output: Tensor, image: Tensor) -> Tensor:
    """Mean squared error per pixel, of `output` and `image` [N, C, H, W]; a scalar.

    Raises InputError where the shapes differ, which torch would broadcast into a meaningless figure.
    """
    if output.shape != image.shape:
        raise InputError(
            f"The model's output has the shape {list(output.shape)} and the images to reconstruct "
            f"{list(image.shape)}; let the model end in that shape (nn.Unflatten)."
        )
    return F.mse_loss(output, image)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy in nats, of `logits` [N, classes] (no softmax before it) and `labels` [N]; a scalar.

    Raises DataError where a label is negative, or not below the number of logits.
    """
    try:
        return F.cross_entropy(logits, labels)
    except IndexError as error:
        raise DataError(
            f"The labels reach from {int(labels.min())} to {int(labels.max())}, and the model has only the classes 0 "
            f"to {logits.shape[1] - 1}; give it as many classes as the data set, which count from 0."
        ) from error


def loss(task: Task) -> Loss:
    """The function (output, target) -> scalar that `task` minimises, a mean over the samples of the batch."""
    if isinstance(task, OwnTask):
        return task.loss
    return squared_error if task == "reconstruct" else cross_entropy
