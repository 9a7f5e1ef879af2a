"""What a network is trained on and judged by: the loss of a task, and its mean over a data set."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import DataError, InputError, TrainingError

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


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """No gradients, and every module in evaluation mode; each module's own mode comes back afterwards.

    The flags are set directly, since the module of an exported program refuses `eval()`.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def evaluate(
    model: nn.Module,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    task: Task,
    seen: Callable[[Tensor, Tensor], None] = lambda output, target: None,
) -> dict[str, float]:
    """Mean loss over all samples and, for `classify`, the accuracy in [0, 1]; or the metrics of an own task.

    Every sample counts alike however the batches fall: what is a mean over a batch is summed in float64. `batches()`
    gives (input, target) pairs on the model's device; `seen` is told of each (output, target). Raises TrainingError
    when the loss or a metric is not finite and DataError when there is no sample.
    """
    totals = dict.fromkeys(measures := _measures(task), 0.0)
    samples = 0
    with evaluation_mode(model):
        for inputs, targets in batches():
            # A mean in float32 would change with the batch size in the seventh digit.
            output = model(inputs).double()
            for name, measure in measures.items():
                totals[name] += float(measure(output, targets)) * len(inputs)
            samples += len(inputs)
            seen(output, targets)
    if not samples:
        raise DataError("There is no sample to evaluate on; the data set's part is empty.")
    for name, total in totals.items():
        if not math.isfinite(total):
            raise TrainingError(
                f"The {name} over {samples:,} samples is {total}: the weights have diverged; lower the learning rate."
            )
    return {name: total / samples for name, total in totals.items()}


def _measures(task: Task) -> dict[str, Loss]:
    """What a network is judged by, by name; the loss comes first."""
    if isinstance(task, OwnTask):
        return {"loss": task.loss, **task.metrics}
    return {"loss": loss(task)} | ({"accuracy": _accuracy} if task == "classify" else {})


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).double().mean()


def headline(metric: Mapping[str, float]) -> float:
    """The one figure of a metric that tables print: the accuracy in percent, or else the loss in 10^-3."""
    return 100 * metric["accuracy"] if "accuracy" in metric else 1000 * metric["loss"]
