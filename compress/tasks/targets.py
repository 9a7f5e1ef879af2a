"""Outputs and targets of the built-in tasks, brought to the shapes and dtypes in which they can be compared.

Data come as they are: labels as floats, as a column or one-hot, values without the last dimension. Where only one
reading is possible, it is taken; anything else is an error that names both shapes.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import DataError, InputError
from compress.task_words import Word
from compress.tasks.kinds import IGNORED
from compress.tasks.outputs import prediction


def require_target(target: object) -> Tensor:
    """The target, if it is a tensor.

    Raises:
        DataError: it is not.
    """
    if not isinstance(target, Tensor):
        found = "no target" if target is None else f"targets of {type(target).__name__}"
        raise DataError(
            f'The batches have {found}, and the task needs a tensor: give pairs (input, target), or "labels" in dicts.'
        )
    return target


# --- classes ---


def class_logits(output: object) -> Tensor:
    """The prediction as logits [N, classes, ...]. A single logit, [N] or [N, 1, ...], is that of class 1 against 0."""
    logits = prediction(output)
    if logits.ndim == 1:
        logits = logits.unsqueeze(1)
    # The cross entropy of [0, z] is the binary cross entropy of z.
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def class_labels(logits: Tensor, target: object, ignore_index: int | None = None) -> Tensor:
    """The labels as int64 [N, ...], for logits [N, classes, ...].

    They may be of any dtype, a column [N, 1], or one-hot [N, classes]; an ignored label is `IGNORED` in the result.

    Raises:
        DataError: they are of another shape, or not the numbers of classes.
    """
    labels = require_target(target)
    places = [logits.shape[0], *logits.shape[2:]]
    if labels.shape == logits.shape and list(labels.shape) != places:
        labels = _not_one_hot(labels)
    elif list(labels.shape) == [places[0], 1, *places[1:]]:
        labels = labels.squeeze(1)
    if list(labels.shape) != places:
        raise DataError(_wrong_labels(logits, labels, places))
    if labels.is_floating_point():
        _require_whole(labels)
    labels = labels if labels.dtype == torch.int64 else labels.long()
    return labels if ignore_index in (None, IGNORED) else labels.masked_fill(labels == ignore_index, IGNORED)


def _not_one_hot(labels: Tensor) -> Tensor:
    """The class of each one-hot row [N, classes, ...]."""
    values = labels.float()
    ones = (values == 1).sum(1)
    if bool((ones == 1).all()) and bool(((values == 0) | (values == 1)).all()):
        return labels.long().argmax(1) if labels.dtype == torch.bool else labels.argmax(1)
    raise DataError(
        f"The labels have the shape {list(labels.shape)} of the outputs, and not every row has a single 1; give class "
        "numbers [N] or one-hot rows, or use task: multilabel for samples with any number of labels."
    )


def _require_whole(labels: Tensor) -> None:
    odd = labels[labels != labels.round()]  # NaN, too, differs from itself
    if len(odd):
        raise DataError(
            f"The labels are {labels.dtype} and hold {float(odd.flatten()[0]):g}, which is not a class number; "
            "use task: regress for values."
        )


def _wrong_labels(logits: Tensor, labels: Tensor, places: list[int]) -> str:
    also = f", [N, 1] or one-hot {[*logits.shape]}" if len(places) == 1 else f" or {[places[0], 1, *places[1:]]}"
    return (
        f"The outputs have the shape {list(logits.shape)} and the labels {list(labels.shape)}; the task classify needs "
        f"labels of {places}{also}. For several labels a sample use task: multilabel; for values, task: regress."
    )


def out_of_range(labels: Tensor, classes: int) -> DataError:
    """What is wrong with labels that are not all below the number of classes."""
    low, high = int(labels.min()), int(labels.max())
    advice = "give it as many classes as the data set, which count from 0."
    if low >= 1 and high == classes:
        advice = "they count from 1: subtract 1 from them."
    elif low < 0 and high < classes:
        advice = f"name the label that is not counted, `task: {{name: classify, ignore_index: {low}}}`, or fix it."
    return DataError(
        f"The labels reach from {low} to {high}, and the model has only the classes 0 to {classes - 1}; {advice}"
    )


# --- several labels a sample ---


def several_labels(output: object, target: object, ignore_index: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The logits [N, labels], whether each label is present, 0 or 1 in the logits' dtype, and which of them count.

    Raises:
        DataError: targets are of another shape, or not in [0, 1].
    """
    logits, labels = prediction(output), require_target(target)
    if labels.shape != logits.shape:
        labels = _same_but_for_ones(labels, logits)
    if labels.shape != logits.shape:
        raise DataError(
            f"The outputs have the shape {list(logits.shape)} and the targets {list(labels.shape)}; the task "
            "multilabel needs a 0 or 1 for each output. For one class number a sample use task: classify."
        )
    counted = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
    present = labels.to(logits.dtype)
    if not bool(((present >= 0) & (present <= 1) | ~counted).all()):
        low, high = float(present.min()), float(present.max())
        raise DataError(
            f"The targets reach from {low:g} to {high:g}, and the task multilabel needs a 0 or 1 for each output; for "
            f"a label that is not known, name it: `task: {{name: multilabel, ignore_index: {low:g}}}`."
        )
    return logits, present, counted


# --- values ---


def values(output: object, target: object, word: Word) -> tuple[Tensor, Tensor]:
    """The prediction and the values that it is compared with, in its shape and dtype.

    Shapes may differ by dimensions of 1 at their end, as [N] and [N, 1].

    Raises:
        InputError: they differ otherwise; torch would broadcast them into a meaningless figure.
    """
    said, wanted = prediction(output), require_target(target)
    if wanted.shape != said.shape:
        wanted = _same_but_for_ones(wanted, said)
    if wanted.shape != said.shape:
        what, way = _SHAPES.get(word, ("targets", "let the model end in that shape, or reshape the targets."))
        raise InputError(
            f"The model's output has the shape {list(said.shape)} and the {what} {list(wanted.shape)}; {way}"
        )
    return said, wanted if wanted.dtype == said.dtype else wanted.to(said.dtype)


_SHAPES = {
    "reconstruct": ("images to reconstruct", "let the model end in that shape (nn.Unflatten)."),
    "anomaly": ("inputs to reconstruct", "let the model end in that shape (nn.Unflatten)."),
}


def _same_but_for_ones(found: Tensor, like: Tensor) -> Tensor:
    """`found` in the shape of `like` where the shapes differ only by dimensions of 1 at the end."""
    return found.reshape(like.shape) if _without_ones(found) == _without_ones(like) else found


def _without_ones(tensor: Tensor) -> list[int]:
    shape = list(tensor.shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return shape


# --- tokens ---


def tokens(output: object, target: object, ignore_index: int | None = None) -> tuple[Tensor, Tensor]:
    """The logits [N, T, tokens] or [N, tokens], and the tokens that follow, [N, T] or [N], as int64.

    An ignored token is `IGNORED` in the result.

    Raises:
        DataError: they do not fit each other.
    """
    logits, wanted = prediction(output), require_target(target)
    if logits.shape[:-1] != wanted.shape:
        turned = logits.ndim == 3 and (logits.shape[0], logits.shape[2]) == tuple(wanted.shape)
        way = "move the tokens to the last dimension of the output" if turned else "give the token after each one"
        raise DataError(
            f"The outputs have the shape {list(logits.shape)} and the tokens {list(wanted.shape)}; the task "
            f"language_model needs outputs [N, T, tokens] and targets [N, T]: {way}."
        )
    if wanted.is_floating_point():
        raise DataError(f"The tokens that follow are {wanted.dtype}; the task language_model needs integers.")
    wanted = wanted.long()
    return logits, wanted if ignore_index in (None, IGNORED) else wanted.masked_fill(wanted == ignore_index, IGNORED)


# --- anomalies ---


def anomalies(target: object) -> tuple[Tensor, Tensor]:
    """The inputs, and for each sample whether it is labelled as an anomaly, bool [N].

    Raises:
        DataError: the target is not {"input": ..., "anomaly": [N]}.
    """
    found = target if isinstance(target, Mapping) else {}
    inputs, flags = found.get("input", target), found.get("anomaly")
    inputs = require_target(inputs)
    if flags is None:
        return inputs, torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    if not isinstance(flags, Tensor) or flags.numel() != len(inputs):
        raise DataError('The target of the task anomaly is {"input": [N, ...], "anomaly": [N], 1 for an anomaly}.')
    return inputs, flags.flatten() != 0


def errors_by_sample(said: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared error of each sample, [N]."""
    return F.mse_loss(said, wanted, reduction="none").flatten(1).mean(1) if said.ndim > 1 else (said - wanted).square()
