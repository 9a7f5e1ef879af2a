"""What single test samples show of the dense and the slim network: classes, values, series, anomalies; and images."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from compress.results import Pictures, RocPoints
from compress.run import pictures
from compress.tasks import NamedTask, Task, word_of
from compress.tasks.kinds import IGNORED, settings_of
from compress.tasks.targets import anomalies, class_labels, class_logits, errors_by_sample, several_labels, values

VALUES = 400
"""Test samples of a scatter plot, spread over the whole test set."""

SERIES, LONGEST = 4, 200
"""Test samples whose series are shown, and steps of each."""

CLASSES = 1000
"""The most classes that are counted one by one."""

POINTS = 100
"""Of a ROC curve."""


class _Part(Protocol):
    def see(self, output: Tensor, target: Any) -> None: ...

    def beside(self, slim: Any) -> Pictures:
        """The entries of results.json, of this dense network and the slim one."""
        ...


class Looks:
    """Watches one network being evaluated: a `seen` of `compress.train.metrics.evaluate`."""

    def __init__(self, task: Task, samples: int | None) -> None:
        """
        Args:
            samples: the number of test samples; if it is unknown, the first ones are shown.
        """
        self.images = pictures.Look(task, samples)
        self.parts = list(_parts(task, samples))

    def __call__(self, output: Tensor, target: Any) -> None:
        self.images(output, target)
        for part in self.parts:
            part.see(output, target)


def compared(dense: Looks, slim: Looks, names: Sequence[str] | None = None) -> Pictures:
    """The entries of results.json; `names` are those of the classes."""
    found = pictures.compared(dense.images, slim.images)
    for before, after in zip(dense.parts, slim.parts, strict=True):
        found |= before.beside(after)
    if "by_class" in found and names and len(names) == len(found["by_class"]["of"]):
        found["by_class"]["names"] = list(names)
    return found


def _parts(task: Task, samples: int | None) -> list[_Part]:
    word = word_of(task)
    if word == "classify":
        return [_ByClass(task if isinstance(task, NamedTask) else settings_of("classify"))]
    if word == "multilabel":
        return [_ByLabel(task if isinstance(task, NamedTask) else settings_of("multilabel"))]
    if word == "regress":
        return [_Values(samples)]
    if word == "forecast":
        return [_Values(samples), _Series(samples)]
    return [_Anomalies()] if word == "anomaly" else []


class _Counts:
    """Counts, for each class, its test samples and those that are predicted right."""

    def __init__(self, task: NamedTask) -> None:
        self._ignored = task.ignore_index
        self.counts: Tensor | None = None  # int64 [2, classes]

    def _add(self, of: Tensor, right: Tensor) -> None:
        found = torch.stack([of, right]).cpu()
        self.counts = found if self.counts is None else self.counts + found

    def beside(self, slim: "_Counts") -> Pictures:
        if self.counts is None or slim.counts is None:
            return {}
        of, dense = self.counts.tolist()
        return {"by_class": {"of": of, "dense": dense, "slim": slim.counts[1].tolist()}}


class _ByClass(_Counts):
    """One class for each sample."""

    def see(self, output: Tensor, target: Any) -> None:
        logits = class_logits(output)
        labels, classes = class_labels(logits, target, self._ignored), logits.shape[1]
        if classes > CLASSES:
            return
        counted = labels != IGNORED
        right = (logits.argmax(1) == labels)[counted]
        labels = labels[counted]
        self._add(torch.bincount(labels, minlength=classes), torch.bincount(labels[right], minlength=classes))


class _ByLabel(_Counts):
    """Any number of labels for each sample: those that have a label, and those in which it is found."""

    def see(self, output: Tensor, target: Any) -> None:
        logits, present, counted = several_labels(output, target, self._ignored)
        if logits.ndim < 2 or logits.shape[1] > CLASSES:
            return
        has = ((present > 0.5) & counted).transpose(0, 1).flatten(1)
        found = (logits > 0).transpose(0, 1).flatten(1)
        self._add(has.sum(1), (has & found).sum(1))


class _Spread:
    """Picks `count` samples that are spread over the test set, by their numbers."""

    def __init__(self, samples: int | None, count: int) -> None:
        every = 1 if samples is None else max(1, samples // count)
        self._wanted, self._passed = range(0, every * count, every), 0

    def of(self, rows: int) -> list[int]:
        """The wanted ones of the next `rows` samples, by their place among them."""
        start = self._passed
        self._passed += rows
        first = -(-start // self._wanted.step) * self._wanted.step
        return [number - start for number in range(first, min(self._passed, self._wanted.stop), self._wanted.step)]


class _Values:
    """The first output of a few hundred samples."""

    def __init__(self, samples: int | None) -> None:
        self._spread = _Spread(samples, VALUES)
        self.target: list[float] = []
        self.output: list[float] = []

    def see(self, output: Tensor, target: Any) -> None:
        said, wanted = values(output, target, "regress")
        rows = self._spread.of(len(said))
        self.output += _rounded(said.flatten(1)[rows, 0] if said.ndim > 1 else said[rows])
        self.target += _rounded(wanted.flatten(1)[rows, 0] if wanted.ndim > 1 else wanted[rows])

    def beside(self, slim: "_Values") -> Pictures:
        if self.target != slim.target or len(self.target) < 2:  # the user's own loader shuffles
            return {}
        return {"values": {"target": self.target, "dense": self.output, "slim": slim.output}}


class _Series:
    """The first channel of a few series."""

    def __init__(self, samples: int | None) -> None:
        self._spread, self._passed = _Spread(samples, SERIES), 0
        self.shown: list[tuple[int, list[float], list[float]]] = []  # (number, target, output)

    def see(self, output: Tensor, target: Any) -> None:
        said, wanted = values(output, target, "forecast")
        for row in self._spread.of(len(said)):
            if said.ndim > 1 and said.shape[1] > 1:
                self.shown.append((self._passed + row, _first_channel(wanted[row]), _first_channel(said[row])))
        self._passed += len(said)

    def beside(self, slim: "_Series") -> Pictures:
        if not self.shown or [one[:2] for one in self.shown] != [one[:2] for one in slim.shown]:
            return {}
        return {
            "series": [
                {"number": number, "target": target, "dense": before, "slim": after}
                for (number, target, before), (_, _, after) in zip(self.shown, slim.shown, strict=True)
            ]
        }


class _Anomalies:
    """The reconstruction error of every test sample, and whether it is labelled as an anomaly."""

    def __init__(self) -> None:
        self._errors: list[Tensor] = []
        self._flags: list[Tensor] = []

    def see(self, output: Tensor, target: Any) -> None:
        inputs, flags = anomalies(target)
        self._errors.append(errors_by_sample(*values(output, inputs, "anomaly")).cpu())
        self._flags.append(flags.cpu())

    def beside(self, slim: "_Anomalies") -> Pictures:
        before, after = self.curve(), slim.curve()
        return {"roc": {"dense": before, "slim": after}} if before and after else {}

    def curve(self) -> RocPoints | None:
        """The ROC curve in at most `POINTS` points; None where all samples are of one kind."""
        errors, flags = torch.cat(self._errors), torch.cat(self._flags)
        positive, negative = int(flags.sum()), int((~flags).sum())
        if not positive or not negative:
            return None
        order = errors.argsort(descending=True)
        sorted_errors, hits = errors[order], flags[order]
        ends = torch.cat([sorted_errors[1:] != sorted_errors[:-1], torch.ones(1, dtype=torch.bool)])
        found = torch.cat([torch.zeros(1), hits.cumsum(0)[ends] / positive]).double()
        alarms = torch.cat([torch.zeros(1), (~hits).cumsum(0)[ends] / negative]).double()
        area = float(torch.trapezoid(found, alarms))
        # Evenly along the curve: of points at even thresholds, few would be on its steep part.
        places = torch.linspace(0, 1, POINTS, dtype=torch.float64)
        kept = torch.searchsorted((found + alarms) / 2, places).clamp(max=len(found) - 1)
        kept = torch.unique(kept)
        return {"false_alarms": _rounded(alarms[kept]), "found": _rounded(found[kept]), "auroc": area}


def _first_channel(series: Tensor) -> list[float]:
    """Of one sample, [T] or [T, ...]."""
    return _rounded((series.flatten(1)[:, 0] if series.ndim > 1 else series)[:LONGEST])


def _rounded(found: Tensor) -> list[float]:
    """In five digits: the figures need no more."""
    return [float(f"{value:.5g}") for value in found.double().cpu().tolist()]
