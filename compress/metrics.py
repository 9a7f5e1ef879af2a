"""What a network is trained on and judged by: the loss of a task, and its mean over a data set."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import DataError, InputError, TrainingError

Task = Literal["reconstruct", "classify"]
Loss = Callable[[Tensor, Tensor], Tensor]


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

    Raises DataError where a label is not below the number of logits.
    """
    try:
        return F.cross_entropy(logits, labels)
    except IndexError as error:
        raise DataError(
            f"The labels reach {int(labels.max())}, and the model has only the classes 0 to "
            f"{logits.shape[1] - 1}; give it as many classes as the data set."
        ) from error


def loss(task: Task) -> Loss:
    """The function (output, target) -> scalar that `task` minimises, a mean over the samples of the batch."""
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
    """Mean loss over all samples and, for `classify`, the accuracy in [0, 1].

    Every sample counts alike however the batches fall: losses are summed in float64. `batches()` gives
    (input, target) pairs on the model's device; `seen` is told of each (output, target). Raises TrainingError when
    the loss is not finite and DataError when there is no sample.
    """
    criterion = loss(task)
    total, correct, samples = 0.0, 0, 0
    with evaluation_mode(model):
        for inputs, targets in batches():
            output = model(inputs)
            # A mean in float32 would change with the batch size in the seventh digit.
            total += float(criterion(output.double(), targets)) * len(inputs)
            samples += len(inputs)
            if task == "classify":
                correct += int((output.argmax(1) == targets).sum())
            seen(output, targets)
    if not samples:
        raise DataError("There is no sample to evaluate on; the data set's part is empty.")
    if not math.isfinite(total):
        raise TrainingError(
            f"The loss over {samples:,} samples is {total}: the weights have diverged; lower the learning rate."
        )
    metric = {"loss": total / samples}
    return metric | {"accuracy": correct / samples} if task == "classify" else metric


def headline(metric: Mapping[str, float]) -> float:
    """The one figure of a metric that tables print: the accuracy in percent, or else the loss in 10^-3."""
    return 100 * metric["accuracy"] if "accuracy" in metric else 1000 * metric["loss"]
