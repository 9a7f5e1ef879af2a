"""The metrics of torchmetrics by their names, accumulated over a whole data set: the batch size does not change them.

torchmetrics is imported when one of them is measured: it takes seconds, and the loss, the accuracy and the perplexity
do not need it.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from compress.errors import DataError
from compress.task_words import Word
from compress.tasks import targets
from compress.tasks.kinds import IGNORED, Loss, NamedTask
from compress.wording import count_of


class UndefinedMetricError(DataError):
    """The samples cannot tell this metric, as AUROC without a positive one."""


def accuracy(task: NamedTask) -> Loss:
    """The share of labels or tokens that are predicted right, of those that count."""

    def right(output: Any, target: Any) -> Tensor:
        if task.word == "language_model":
            logits, labels = targets.tokens(output, target, task.ignore_index)
            guess = logits.argmax(-1)
        else:
            logits = targets.class_logits(output)
            guess, labels = logits.argmax(1), targets.class_labels(logits, target, task.ignore_index)
        counted = labels != IGNORED
        return (guess == labels)[counted].double().mean()

    return right


class Meter(Protocol):
    """Accumulates a metric batch by batch."""

    def update(self, output: Any, target: Any) -> None: ...

    def sides(self, output: Any, target: Any) -> tuple[Tensor, Tensor]:
        """What the metric compares, a row for each sample or label that counts, in the shapes that it wants."""
        ...

    def add(self, said: Tensor, truth: Tensor) -> None:
        """`update` with what `sides` has given."""

    def compute(self) -> float:
        """Raises UndefinedMetricError where the samples do not determine it."""
        ...


def meter(name: str, task: NamedTask) -> Meter:
    """The meter of a metric of `compress.task_words.METRICS`."""
    return _Meter(name, task)


class _Meter:
    """A metric of torchmetrics in float64. It is built at the first batch, which tells the number of classes."""

    def __init__(self, name: str, task: NamedTask) -> None:
        self._name, self._task = name, task
        self._metric: Any = None
        self._seen: Tensor | None = None  # by class or label: how many samples have it, and how many do not

    def update(self, output: Any, target: Any) -> None:
        self.add(*self.sides(output, target))

    def add(self, said: Tensor, truth: Tensor) -> None:
        if not len(truth):
            return
        if self._metric is None:
            self._metric = self._built(said)
        if self._name in _RANKED:
            seen = _presence(said, truth)
            self._seen = seen if self._seen is None else self._seen + seen
        with warnings.catch_warnings(action="ignore"):  # of classes that this batch does not have
            self._metric.update(said, truth)

    def _built(self, said: Tensor) -> Any:
        outputs = said.shape[1] if said.ndim > 1 else None
        # In float32, sums would change with the batch size in the seventh digit.
        with warnings.catch_warnings(action="ignore"):  # of the memory that exact AUROC and ranks take
            return built(self._name, self._task.word, outputs).set_dtype(torch.float64).to(said.device)

    def sides(self, output: Any, target: Any) -> tuple[Tensor, Tensor]:
        word = self._task.word
        said, truth = _SIDES[word](output, target, self._task)
        if word == "classify" and said.shape[1] == 2 and self._name in _OF_TWO:
            return said[:, 1], truth
        if self._name in ("psnr", "ssim"):
            _require_images(self._name, truth)
        elif word in ("reconstruct", "regress", "forecast"):
            # A column, or one number a sample, where each sample has several.
            return (said.flatten(), truth.flatten()) if said[0].numel() == 1 else (said.flatten(1), truth.flatten(1))
        return said, truth

    def compute(self) -> float:
        if self._metric is None:
            raise UndefinedMetricError(f"No sample counts, so there is no {self._name}.")
        try:
            with warnings.catch_warnings(action="ignore"):
                found = self._metric.compute()
        except ValueError as error:  # R2 of a single sample
            raise UndefinedMetricError(f"The {self._name} cannot be computed: {error}") from error
        if found.ndim:
            found = self._over_classes(found)
        elif self._seen is not None:
            self._told()
        value = float(found)
        if math.isnan(value):
            raise UndefinedMetricError(f"The {self._name} over these samples is not a number.")
        return value

    def _over_classes(self, by_class: Tensor) -> Tensor:
        """The mean or the worst over the classes that can be judged."""
        if self._seen is not None:
            return by_class[self._told()].mean()
        if "accuracy" not in self._name:
            return by_class.mean()
        there = by_class[(self._metric.tp + self._metric.fn) > 0]
        return there.min() if self._name == "worst_class_accuracy" else there.mean()

    def _told(self) -> Tensor:
        """Which classes or labels some samples have, and others do not."""
        assert self._seen is not None
        told = (self._seen > 0).all(0)
        if not told.any():
            raise UndefinedMetricError(
                f"The {self._name} compares samples that have a label with others that do not, and in this part of the "
                "data all samples have the same; test on samples of both kinds, or name another metric with `metrics:`."
            )
        return told


_RANKED = ("auroc", "average_precision")
"""Of the order of scores: undefined for a class that no sample has, or each has."""


def _presence(said: Tensor, truth: Tensor) -> Tensor:
    """[2, classes or labels]: how many samples have each, and how many do not; two classes are one label."""
    if truth.ndim > 1:
        return torch.stack([(truth == 1).sum(0), (truth == 0).sum(0)])
    if said.ndim == 1:
        return torch.stack([(truth == 1).sum(), (truth == 0).sum()])[:, None]
    has = torch.bincount(truth, minlength=said.shape[1])
    return torch.stack([has, len(truth) - has])


def _require_images(name: str, truth: Tensor) -> None:
    low, high = truth.aminmax()
    if low < 0 or high > 1 or (name == "ssim" and truth.ndim != 4):
        raise DataError(
            f"The targets {list(truth.shape)} reach from {float(low):.3g} to {float(high):.3g}, and {name} is of "
            "images [N, C, H, W] in [0, 1]; leave it out of `metrics:`."
        )


# --- what torchmetrics compares ---


def _class_sides(output: Any, target: Any, task: NamedTask) -> tuple[Tensor, Tensor]:
    """Probabilities [M, classes] and labels [M], one for each label that counts."""
    logits = targets.class_logits(output)
    labels = targets.class_labels(logits, target, task.ignore_index)
    counted = labels != IGNORED
    return logits.movedim(1, -1)[counted].softmax(-1), labels[counted]


def _label_sides(output: Any, target: Any, task: NamedTask) -> tuple[Tensor, Tensor]:
    """Probabilities [N, labels], and 0 or 1 for each, or -1 where it does not count."""
    logits, present, counted = targets.several_labels(output, target, task.ignore_index)
    rows = [-1, logits.shape[-1]] if logits.ndim > 1 else [-1, 1]
    return logits.sigmoid().reshape(rows), present.round().long().masked_fill(~counted, -1).reshape(rows)


def _value_sides(output: Any, target: Any, task: NamedTask) -> tuple[Tensor, Tensor]:
    return targets.values(output, target, task.word)


def _anomaly_sides(output: Any, target: Any, task: NamedTask) -> tuple[Tensor, Tensor]:
    """A score of each sample in [0, 1), which rises with the error of its reconstruction, and 1 for an anomaly."""
    inputs, flags = targets.anomalies(target)
    errors = targets.errors_by_sample(*targets.values(output, inputs, "anomaly"))
    # torchmetrics takes the sigmoid of what is not in [0, 1], batch by batch.
    return errors / (1 + errors), flags.long()


_SIDES: Mapping[Word, Callable[[Any, Any, NamedTask], tuple[Tensor, Tensor]]] = {
    "reconstruct": _value_sides,
    "classify": _class_sides,
    "multilabel": _label_sides,
    "regress": _value_sides,
    "forecast": _value_sides,
    "anomaly": _anomaly_sides,
}


# --- the metrics of torchmetrics ---


def built(name: str, word: Word, outputs: int | None) -> Any:
    """The metric of torchmetrics.

    Args:
        outputs: the number of classes, labels or values of a sample; None for one score or value a sample.
    """
    if word == "multilabel":
        return _of_labels(name, outputs or 1)
    if word == "anomaly" or (word == "classify" and outputs is None):
        return _of_two(name)
    return _of_classes(name, outputs or 2) if word == "classify" else _of_values(name, word, outputs or 1)


_OF_TWO = ("f1", "precision", "recall", "specificity", "auroc", "average_precision", "jaccard", "calibration_error")
"""For two classes, these are of class 1, as in scikit-learn; with more, their mean over the classes."""


def _of_two(name: str) -> Any:
    import torchmetrics.classification as known

    kinds = {
        "f1": known.BinaryF1Score,
        "precision": known.BinaryPrecision,
        "recall": known.BinaryRecall,
        "specificity": known.BinarySpecificity,
        "auroc": known.BinaryAUROC,
        "average_precision": known.BinaryAveragePrecision,
        "jaccard": known.BinaryJaccardIndex,
        "calibration_error": known.BinaryCalibrationError,
    }
    return kinds[name](validate_args=False)


def _of_classes(name: str, classes: int) -> Any:
    import torchmetrics.classification as known

    if name == "top_5_accuracy":
        if classes < 6:
            raise DataError(
                f"top_5_accuracy of {count_of(classes, 'class', 'classes')} is always 1; leave it out of `metrics:`."
            )
        return known.MulticlassAccuracy(classes, top_k=5, average="micro", validate_args=False)
    by_class = {
        "balanced_accuracy": known.MulticlassAccuracy,
        "worst_class_accuracy": known.MulticlassAccuracy,
        "auroc": known.MulticlassAUROC,
        "average_precision": known.MulticlassAveragePrecision,
    }
    macro = {
        "f1": known.MulticlassF1Score,
        "precision": known.MulticlassPrecision,
        "recall": known.MulticlassRecall,
        "specificity": known.MulticlassSpecificity,
        "jaccard": known.MulticlassJaccardIndex,
    }
    whole = {
        "matthews_corrcoef": known.MulticlassMatthewsCorrCoef,
        "cohen_kappa": known.MulticlassCohenKappa,
        "calibration_error": known.MulticlassCalibrationError,
    }
    if name in by_class:
        return by_class[name](classes, average="none", validate_args=False)
    if name in macro:
        return macro[name](classes, average="macro", validate_args=False)
    return whole[name](classes, validate_args=False)


def _of_labels(name: str, labels: int) -> Any:
    import torchmetrics.classification as known

    ignoring: dict[str, Any] = {"ignore_index": -1, "validate_args": False}
    if name == "exact_match":
        return known.MultilabelExactMatch(labels, **ignoring)
    if name == "accuracy":
        return known.MultilabelAccuracy(labels, average="micro", **ignoring)
    macro = {
        "f1": known.MultilabelF1Score,
        "precision": known.MultilabelPrecision,
        "recall": known.MultilabelRecall,
        "specificity": known.MultilabelSpecificity,
        "jaccard": known.MultilabelJaccardIndex,
    }
    if name in macro:
        return macro[name](labels, average="macro", **ignoring)
    ranked = {"auroc": known.MultilabelAUROC, "average_precision": known.MultilabelAveragePrecision}
    return ranked[name](labels, average="none", **ignoring)


def _of_values(name: str, word: Word, outputs: int) -> Any:
    import torchmetrics.image as images
    import torchmetrics.regression as known

    if name == "psnr":
        return images.PeakSignalNoiseRatio(data_range=1.0)
    if name == "ssim":
        return images.StructuralSimilarityIndexMeasure(data_range=1.0)
    if name in ("r2", "explained_variance"):
        # Of images and series, some places never change, and have no variance to explain.
        average = "uniform_average" if word == "regress" else "variance_weighted"
        return {"r2": known.R2Score, "explained_variance": known.ExplainedVariance}[name](multioutput=average)
    if name in ("pearson", "spearman"):
        return {"pearson": known.PearsonCorrCoef, "spearman": known.SpearmanCorrCoef}[name](num_outputs=outputs)
    plain = {
        "mae": known.MeanAbsoluteError,
        "mse": known.MeanSquaredError,
        "mape": known.MeanAbsolutePercentageError,
        "smape": known.SymmetricMeanAbsolutePercentageError,
    }
    return known.MeanSquaredError(squared=False) if name == "rmse" else plain[name]()
