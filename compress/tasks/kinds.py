"""The tasks that networks are trained for: by word, by word with settings, or with functions of the user's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from compress.ranking import KINDS, LOSS, Better, MetricKind, kind_of
from compress.task_words import DEFAULT_METRICS, Word

Loss = Callable[[Any, Any], Tensor]
"""(output, target) -> scalar, a mean over the samples of the batch. The output is whatever the network returns."""

IGNORED = -100
"""The label that cross entropy does not count, unless a task names another one."""


@dataclass(frozen=True)
class NamedTask:
    """A task by its word, with settings.

    metrics: by name, measured beside the loss; None for those that the word has by default.
    rank_by: the metric that decides between networks; None for the first that the word ranks by.
    ignore_index: a label that is not counted.
    label_smoothing: of the training loss of `classify`, in [0, 1).
    """

    word: Word
    metrics: tuple[str, ...] | None = None
    rank_by: str | None = None
    ignore_index: int | None = None
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class OwnTask:
    """A loss and metrics of the user's own.

    target: what samples in memory or in files are compared with, their labels or the inputs themselves; loaders
        decide for themselves.
    rank_by: the metric that decides between networks; None for "accuracy" where there is one, or else the loss.
    better: of that metric; it is needed where its name is not one that this package knows.
    """

    loss: Loss
    metrics: Mapping[str, Loss] = field(default_factory=dict)
    target: Literal["label", "image"] = "label"
    rank_by: str | None = None
    better: Better | None = None


Task = Word | NamedTask | OwnTask


def word_of(task: Task) -> Word | None:
    """The word of a task; None for one of the user's own."""
    if isinstance(task, OwnTask):
        return None
    return task.word if isinstance(task, NamedTask) else task


def settings_of(task: Word | NamedTask) -> NamedTask:
    return task if isinstance(task, NamedTask) else NamedTask(task)


def wants_inputs(task: Task) -> bool:
    """Whether the output is compared with the input itself, or else with a target that the data set has."""
    return task.target == "image" if isinstance(task, OwnTask) else word_of(task) in ("reconstruct", "anomaly")


def ranking(task: Task) -> MetricKind:
    """The metric that decides between networks of this task."""
    if isinstance(task, OwnTask):
        name = task.rank_by or ("accuracy" if "accuracy" in task.metrics else "loss")
        return kind_of(name, task.better)
    named = settings_of(task)
    if named.rank_by is not None:
        return KINDS[named.rank_by]
    measured = metrics_of(task)
    return KINDS[measured[0]] if measured else LOSS


def metrics_of(task: Word | NamedTask) -> tuple[str, ...]:
    """The names of the metrics that are measured beside the loss; the first ranks by default."""
    named = settings_of(task)
    if named.metrics is None:
        return DEFAULT_METRICS[named.word]
    extra = () if named.rank_by in (None, "loss", *named.metrics) else (named.rank_by,)
    return (*named.metrics, *extra)
