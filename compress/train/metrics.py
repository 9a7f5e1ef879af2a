"""Metrics of a network over a data set: the mean of its task's loss, and what else the task is judged by."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from compress.batches import Pairs, pairs
from compress.errors import DataError, TrainingError
from compress.evaluation_mode import evaluation_mode
from compress.ranking import MetricKind, default_of, present
from compress.tasks import OwnTask, Task, counted, in_float64, measured_loss, metrics_of, prediction
from compress.tasks.kinds import Loss, settings_of
from compress.tasks.metrics import Meter, UndefinedMetricError, accuracy, meter
from compress.wording import count_of


def evaluate(
    model: nn.Module,
    batches: Callable[[], Pairs],
    task: Task,
    seen: Callable[[Any, Any], None] = lambda output, target: None,
    *,
    partial: bool = False,
) -> dict[str, float]:
    """The mean loss over all samples, and the metrics of the task: the accuracy in [0, 1] for `classify`, and so on.

    The batch sizes change nothing: every sample (or label or token, where each counts by itself) has the same weight,
    and AUROC and the like are of all samples together. `batches()` gives batches on the model's device. `seen` is
    called with each (output, target), as the measures are: for a built-in task, the output is the tensor that
    `prediction` finds in it.

    Args:
        partial: the samples are only a part of the data; a metric that they cannot tell is then left out.

    Raises:
        TrainingError: the loss or a metric is not finite.
        DataError: there is no sample, targets do not fit the outputs, or the samples cannot tell a metric.
    """
    tally, samples = Tally(task), 0
    with evaluation_mode(model):
        for given, targets in pairs(batches(), model):
            output = comparable(given.call(model), task)
            tally.add(output, targets, given.rows)
            samples += given.rows
            seen(output, targets)
    if not samples:
        raise DataError("No sample to evaluate on: this part of the data set is empty.")
    if not tally.weight:
        raise DataError("No label to evaluate on: none in this part of the data set counts.")
    found = tally.metric(partial=partial)
    _require_finite(found, samples)
    return found


def comparable(output: Any, task: Task) -> Any:
    """What the measures of `task` see of a network's output: for a built-in task the prediction; in float64.

    A mean in float32 would change with the batch size in the seventh digit.
    """
    return in_float64(output if isinstance(task, OwnTask) else prediction(output))


class Tally:
    """The metrics of outputs that are added batch by batch."""

    def __init__(self, task: Task) -> None:
        self._task, self._means, self._meters = task, _means(task), _meters(task)
        self._totals = dict.fromkeys(self._means, 0.0)
        self.weight = 0
        """The number of samples, labels or tokens that count."""

    def add(self, output: Any, target: Any, rows: int) -> None:
        """Add a batch of `rows` samples; the output is what `comparable` makes of it."""
        weight = counted(self._task, output, target, rows)
        for name, measure in self._means.items():
            self._totals[name] += float(measure(output, target)) * weight if weight else 0.0
        for one in self._meters.values():
            one.update(output, target)
        self.weight += weight

    def metric(self, *, partial: bool) -> dict[str, float]:
        """The metrics so far, of which at least one sample has to count.

        Args:
            partial: leave out a metric that the samples cannot tell.

        Raises:
            DataError: the samples cannot tell a metric.
        """
        found = {name: total / self.weight for name, total in self._totals.items()}
        if not isinstance(self._task, OwnTask) and "perplexity" in metrics_of(self._task):
            found["perplexity"] = math.exp(min(found["loss"], _MOST))
        _add(found, self._meters, partial=partial)
        return {name: found[name] for name in ("loss", *_names(self._task)) if name in found}


_MOST = 709.0
"""The largest power of e that a float holds."""


def _names(task: Task) -> tuple[str, ...]:
    return tuple(task.metrics) if isinstance(task, OwnTask) else metrics_of(task)


def _means(task: Task) -> dict[str, Loss]:
    """The metrics that are means over what counts, by name; the loss comes first."""
    if isinstance(task, OwnTask):
        return {"loss": task.loss, **task.metrics}
    named = settings_of(task)
    own = {"accuracy": accuracy(named)} if "accuracy" in metrics_of(task) and named.word != "multilabel" else {}
    return {"loss": measured_loss(task), **own}


def _meters(task: Task) -> dict[str, Meter]:
    if isinstance(task, OwnTask):
        return {}
    named, without = settings_of(task), {*_means(task), "perplexity"}
    return {name: meter(name, named) for name in metrics_of(task) if name not in without}


def _add(found: dict[str, float], meters: Mapping[str, Meter], *, partial: bool) -> None:
    for name, one in meters.items():
        try:
            found[name] = one.compute()
        except UndefinedMetricError:
            if not partial:
                raise


def _require_finite(found: Mapping[str, float], samples: int) -> None:
    for name, value in found.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"The {name} over {count_of(samples, 'sample')} is {value}: the weights have diverged. Train with a "
                "lower learning rate, or use weights from before"
            )


def headline(metric: Mapping[str, float], ranked: MetricKind | None = None) -> float:
    """The one figure of a metric that tables print, in the unit of what ranks: the accuracy in percent, for one.

    Args:
        ranked: what ranks; the accuracy where there is one, or else the loss, if absent.
    """
    kind = present(ranked or default_of(metric), metric)
    return kind.scaled(metric[kind.name])
