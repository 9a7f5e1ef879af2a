"""Metrics of a network: the mean over a data set of its task's loss, and of other measures."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from compress.batches import Pairs, pairs
from compress.errors import DataError, TrainingError
from compress.evaluation_mode import evaluation_mode
from compress.tasks import Loss, OwnTask, Task, in_float64, loss, prediction


def evaluate(
    model: nn.Module,
    batches: Callable[[], Pairs],
    task: Task,
    seen: Callable[[Any, Any], None] = lambda output, target: None,
) -> dict[str, float]:
    """Mean loss over all samples and, for `classify`, the accuracy in [0, 1]; or the metrics of an own task.

    Every sample has the same weight whatever the batch sizes: means over batches are summed in float64. `batches()`
    gives batches on the model's device. `seen` is called with each (output, target), as the measures are: for a
    built-in task, the output is the tensor that `prediction` finds in it. Raises TrainingError when the loss or a
    metric is not finite, and DataError without a sample.
    """
    totals = dict.fromkeys(measures := _measures(task), 0.0)
    samples = 0
    with evaluation_mode(model):
        for given, targets in pairs(batches(), model):
            output = given.call(model)
            # A mean in float32 would change with the batch size in the seventh digit.
            output = in_float64(output if isinstance(task, OwnTask) else prediction(output))
            for name, measure in measures.items():
                totals[name] += float(measure(output, targets)) * given.rows
            samples += given.rows
            seen(output, targets)
    if not samples:
        raise DataError("No sample to evaluate on: this part of the data set is empty.")
    for name, total in totals.items():
        if not math.isfinite(total):
            raise TrainingError(
                f"The {name} over {samples:,} samples is {total}: the weights have diverged; lower the learning rate."
            )
    return {name: total / samples for name, total in totals.items()}


def _measures(task: Task) -> dict[str, Loss]:
    """The metrics by name; the loss comes first."""
    if isinstance(task, OwnTask):
        return {"loss": task.loss, **task.metrics}
    return {"loss": loss(task)} | ({"accuracy": _accuracy} if task == "classify" else {})


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).double().mean()


def headline(metric: Mapping[str, float]) -> float:
    """The one figure of a metric that tables print: the accuracy in percent, or else the loss in 10^-3."""
    return 100 * metric["accuracy"] if "accuracy" in metric else 1000 * metric["loss"]
