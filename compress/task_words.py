"""The tasks that this package knows by a word, and the metrics that each can be measured by."""

from collections.abc import Mapping
from typing import Literal, get_args

Word = Literal["reconstruct", "classify", "multilabel", "regress", "forecast", "language_model", "anomaly"]

WORDS: tuple[Word, ...] = get_args(Word)

DEFAULT_METRICS: Mapping[Word, tuple[str, ...]] = {
    "reconstruct": (),
    "classify": ("accuracy",),
    "multilabel": ("f1", "auroc"),
    "regress": ("mae", "r2"),
    "forecast": ("mae",),
    "language_model": ("perplexity",),
    "anomaly": ("auroc",),
}
"""What is measured beside the loss where a recipe names no metrics. The first of them ranks; without any, the loss."""

_OF_VALUES = ("mae", "mse", "rmse", "mape", "smape", "r2", "explained_variance", "pearson", "spearman")
_OF_LABELS = ("f1", "precision", "recall", "specificity", "auroc", "average_precision", "jaccard")

METRICS: Mapping[Word, tuple[str, ...]] = {
    "reconstruct": (*_OF_VALUES, "psnr", "ssim"),
    "classify": (
        *("accuracy", "balanced_accuracy", "worst_class_accuracy", "top_5_accuracy"),
        *_OF_LABELS,
        *("matthews_corrcoef", "cohen_kappa", "calibration_error"),
    ),
    "multilabel": ("accuracy", *_OF_LABELS, "exact_match"),
    "regress": _OF_VALUES,
    "forecast": _OF_VALUES,
    "language_model": ("perplexity", "accuracy"),
    "anomaly": ("auroc", "average_precision"),
}
"""All metrics that a task of this word can be measured by, beside the loss."""

TARGETS: Mapping[Word, str] = {
    "reconstruct": "the input itself",
    "classify": "a class number for each sample, or for each of its places",
    "multilabel": "0 or 1 for each of the outputs",
    "regress": "one or several numbers",
    "forecast": "the numbers that follow",
    "language_model": "the token that follows each one",
    "anomaly": "the input itself, and 1 for an anomaly, which is only looked at in tests",
}
"""What the outputs of each task are compared with, in words."""

LOSSES: Mapping[Word, str] = {
    "reconstruct": "mean squared error per value",
    "classify": "cross-entropy",
    "multilabel": "binary cross-entropy",
    "regress": "mean squared error",
    "forecast": "mean squared error",
    "language_model": "cross-entropy per token",
    "anomaly": "mean squared error of normal samples",
}
"""What the loss of each task is, in words."""

IGNORING: tuple[Word, ...] = ("classify", "multilabel", "language_model")
"""The tasks whose targets may hold a label that is not counted."""
