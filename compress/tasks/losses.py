"""The losses that the tasks minimise: (output, target) -> scalar, a mean over what is counted."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from compress.task_words import Word
from compress.tasks import targets
from compress.tasks.kinds import IGNORED, Loss, NamedTask, OwnTask, Task, settings_of


def loss(task: Task) -> Loss:
    """The function (output, target) -> scalar that `task` minimises, a mean over the samples of the batch."""
    if isinstance(task, OwnTask):
        return task.loss
    named = settings_of(task)
    return _plain(named, label_smoothing=named.label_smoothing)


def measured_loss(task: Task) -> Loss:
    """`loss` as it is measured: without label smoothing, which only helps training."""
    return task.loss if isinstance(task, OwnTask) else _plain(settings_of(task))


def _plain(named: NamedTask, label_smoothing: float = 0.0) -> Loss:
    function = _LOSSES[named.word]
    settings: dict[str, Any] = {}
    if named.word in ("classify", "multilabel", "language_model") and named.ignore_index is not None:
        settings["ignore_index"] = named.ignore_index
    if label_smoothing:
        settings["label_smoothing"] = label_smoothing
    return partial(function, **settings) if settings else function


def squared_error(output: object, image: object) -> Tensor:
    """Mean squared error per pixel, of the output's prediction and `image` [N, C, H, W]; a scalar.

    Raises InputError where the shapes differ, which torch would broadcast into a meaningless figure.
    """
    return F.mse_loss(*targets.values(output, image, "reconstruct"))


def error_of_values(output: object, target: object) -> Tensor:
    """Mean squared error, of the output's prediction and `target`, both [N, ...]; a scalar.

    Raises InputError as `squared_error`.
    """
    return F.mse_loss(*targets.values(output, target, "regress"))


def cross_entropy(
    output: object, target: object, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross entropy in nats, of logits [N, classes, ...] (no softmax before them) and labels [N, ...].

    Both are what `targets.class_logits` and `targets.class_labels` make of them. A label of `ignore_index`, or of -100,
    is not counted; 0 where none is.

    Raises DataError where a label is negative, or not below the number of logits.
    """
    logits = targets.class_logits(output)
    labels = targets.class_labels(logits, target, ignore_index)
    try:
        found = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    except IndexError as error:
        raise targets.out_of_range(labels, logits.shape[1]) from error
    return found if (labels != IGNORED).any() else logits.sum() * 0


def binary_cross_entropy(output: object, target: object, ignore_index: int | None = None) -> Tensor:
    """Mean binary cross entropy in nats, of logits and labels, 0 or 1, both [N, labels]."""
    logits, present, counted = targets.several_labels(output, target, ignore_index)
    if ignore_index is not None:
        logits, present = logits[counted], present[counted]
        if not len(logits):
            return logits.sum()
    return F.binary_cross_entropy_with_logits(logits, present)


def next_token(output: object, target: object, ignore_index: int | None = None) -> Tensor:
    """Mean cross entropy in nats a token, of logits [N, T, tokens] and the tokens [N, T] that follow.

    A target of `ignore_index`, or of -100, is not counted; 0 where none is.
    """
    logits, wanted = targets.tokens(output, target, ignore_index)
    return cross_entropy(logits.flatten(0, -2), wanted.flatten())


def error_of_input(output: object, target: object) -> Tensor:
    """Mean squared error of the prediction and the input, over the samples that are not labelled as anomalies.

    0 where all are.
    """
    inputs, flags = targets.anomalies(target)
    said, wanted = targets.values(output, inputs, "anomaly")
    normal = ~flags
    if normal.all():
        return F.mse_loss(said, wanted)
    return F.mse_loss(said[normal], wanted[normal]) if normal.any() else said.sum() * 0


_LOSSES: Mapping[Word, Callable[..., Tensor]] = {
    "reconstruct": squared_error,
    "classify": cross_entropy,
    "multilabel": binary_cross_entropy,
    "regress": error_of_values,
    "forecast": error_of_values,
    "language_model": next_token,
    "anomaly": error_of_input,
}


BUILT_IN = tuple(_LOSSES.values())


def counted(task: Task, output: Any, target: Any, rows: int) -> int:
    """What the loss of a batch of `rows` samples is a mean over: the number of samples, labels or tokens that count."""
    if isinstance(task, OwnTask):
        return rows
    named = settings_of(task)
    if named.word == "classify":
        labels = targets.class_labels(targets.class_logits(output), target, named.ignore_index)
        return int((labels != IGNORED).sum())
    if named.word == "language_model":
        return int((targets.tokens(output, target, named.ignore_index)[1] != IGNORED).sum())
    if named.word == "multilabel" and named.ignore_index is not None:
        return int(targets.several_labels(output, target, named.ignore_index)[2].sum())
    return int((~targets.anomalies(target)[1]).sum()) if named.word == "anomaly" else rows
