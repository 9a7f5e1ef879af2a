"""Is a network better than the best output that does not depend on the input? If not, nobody wants its file.

The constant output is found on training samples and measured on the test samples, by the metric that ranks. Sampling
error is that of the differences between networks over parts of the test samples, so that a small test set does not
condemn a network.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from compress.batches import pairs
from compress.errors import ConstantOutputError
from compress.evaluation_mode import evaluation_mode
from compress.ranking import KINDS, LOSS, MetricKind
from compress.report.constant import WAY_OUT, no_better
from compress.results import AgainstConstant, Metric, ModelName, Results
from compress.run.setting import Setting
from compress.select.scoring import EVALUATION_BATCH
from compress.tasks import OwnTask, Task, ranking
from compress.tasks.constant import ConstantOutput
from compress.tasks.kinds import settings_of
from compress.train.metrics import Tally, comparable

BATCHES = 8
"""Of training samples, from which the constant output is found: 2,000 tell a mean to 2 % of the samples' deviation."""

PARTS = 10
"""Of the test samples, by which the sampling error is estimated."""

FEWEST = 30
"""Test samples: fewer condemn no network."""

CHANCE = 2.0
"""Standard errors by which a network is ahead of the constant output, if it has learned anything."""

KEPT, FAIR, ERRORS = 0.05, 0.5, 3.0
"""A slim network is no better than a constant output if it keeps at most `KEPT` of the dense network's lead over it,
and if by `ERRORS` standard errors it keeps less than the share `FAIR`."""

_NETWORKS: tuple[ModelName, ...] = ("dense", "slim")
_BY_LOSS = {"perplexity", "r2", "explained_variance", "pearson", "spearman", "calibration_error"}
"""Metrics that follow from the loss, or that a constant output does not have or has at its best."""

_OF_POSITIVES = {"f1", "jaccard", "precision"}
_DEGENERATE = {"recall", "specificity"}  # 1 for an output that is always positive, or never


def judged_by(task: Task) -> tuple[MetricKind, ...]:
    """The metrics by which a network has to be better than a constant output: the one that ranks.

    A detector of anomalies has to be better than the mean input by its loss, and than a constant score by its AUROC.
    """
    ranked = ranking(task)
    if isinstance(task, OwnTask):
        return (ranked,)
    if settings_of(task).word == "anomaly" and ranked.name != "loss":
        return KINDS["auroc"], LOSS
    if ranked.name in _DEGENERATE:
        return (KINDS["f1"],)
    return (LOSS if ranked.name in _BY_LOSS else ranked,)


def constant_output(network: nn.Module, setting: Setting) -> ConstantOutput:
    """The best constant output for the recipe's data, from up to `BATCHES` batches of training samples.

    Args:
        network: the dense network, whose outputs tell their shape, and where the loss is the user's own, their mean.
    """
    found, task = ConstantOutput(setting.task), setting.task
    batches = setting.data.batches("train", EVALUATION_BATCH, task, setting.device)
    drawn = islice(batches(torch.Generator().manual_seed(setting.seed)), BATCHES)
    with torch.random.fork_rng([]), evaluation_mode(network):
        for given, target in pairs(drawn, network):
            found.see(comparable(given.call(network), task), target, given.rows)
    return found


class Compared:
    """Watches the dense network, and then the slim one, being evaluated on the test samples.

    `dense` and `slim` are each a `seen` of `compress.train.metrics.evaluate`.
    """

    def __init__(self, task: Task, constant: ConstantOutput) -> None:
        self._task, self._constant, self.judged = task, constant, judged_by(task)
        brief = _with_metrics(task, [kind.name for kind in self.judged])
        self._parts = {name: _Parts(brief) for name in ("dense", "slim", "constant", "positive")}
        self._whole = {"constant": Tally(task), "positive": Tally(brief)}
        self._judged = {name: Tally(brief) for name in _NETWORKS}

    @property
    def words(self) -> str:
        """The constant output."""
        return self._constant.words

    def dense(self, output: Any, target: Any) -> None:
        with self._measuring():
            if (constant := self._constant.like(output)) is None:
                return
            self._parts["dense"].add(output, target)
            self._judged["dense"].add(output, target, _rows(output))
            self._add("constant", constant, target)
            if any(kind.name in _OF_POSITIVES for kind in self.judged):
                self._add("positive", self._constant.positive(output), target)

    def _add(self, name: str, output: Any, target: Any) -> None:
        if output is not None:
            self._parts[name].add(output, target)
            self._whole[name].add(output, target, _rows(output))

    def slim(self, output: Any, target: Any) -> None:
        with self._measuring():
            if self._constant.missing is None:
                self._parts["slim"].add(output, target)
                self._judged["slim"].add(output, target, _rows(output))

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """A function of the user's own may not take a constant output, or parts of a batch."""
        try:
            yield
        except Exception as error:
            if not isinstance(self._task, OwnTask):
                raise
            self._constant.missing = f"the task's functions do not take it ({type(error).__name__}: {error})"

    @property
    def metric(self) -> Metric | None:
        """Of the constant output; None where there is none."""
        if self._constant.missing is not None or not self._whole["constant"].weight:
            return None
        found = self._whole["constant"].metric(partial=True)
        for kind in self.judged:
            if (value := self._best(kind)[1]) is not None:
                found[kind.name] = value
        return found

    def _best(self, kind: MetricKind) -> tuple[str, float | None]:
        """Which constant output has most of the metric, and how much."""
        if kind.name == "auroc" and self._detects:
            return "constant", 0.5  # one score for all samples
        every = {name: tally.metric(partial=True) for name, tally in self._whole.items() if tally.weight}
        values = {name: metric[kind.name] for name, metric in every.items() if kind.name in metric}
        if not values:
            return "constant", None
        best = (max if kind.larger else min)(values, key=lambda name: values[name])
        return best, values[best]

    def is_chance(self, kind: MetricKind) -> bool:
        """Whether the dense network is not ahead of the constant output beyond chance, as far as that is known."""
        leads = self._leads(kind, "dense")
        return len(leads) >= 3 and statistics.mean(leads) <= CHANCE * _error(leads)

    def document(self) -> AgainstConstant:
        """The entry of results.json."""
        metric = self.metric
        if metric is None:
            why = self._constant.missing or "no test sample counts"
            return {"output": self.words, "verdict": "not told", "why": why}
        found: AgainstConstant = {"output": self.words, "metric": metric, "verdict": "better", "kept": {}}
        verdicts = []
        metrics = {name: tally.metric(partial=True) for name, tally in self._judged.items()}
        for kind in self.judged:
            if all(kind.name in known for known in (metric, *(metrics[name] for name in _NETWORKS))):
                dense, slim = (metrics[name][kind.name] for name in _NETWORKS)
                verdict, kept = self._verdict(kind, metric[kind.name], dense, slim)
                verdicts.append(verdict)
                if kept is not None:
                    found["kept"][kind.name] = kept
        order = ("no better", "better", "not told", "dense no better")
        found["verdict"] = min(verdicts, key=order.index, default="not told")
        if found["verdict"] == "not told":
            found["why"] = f"{self._parts['dense'].rows:,} test samples are too few"
        return found

    def _verdict(self, kind: MetricKind, constant: float, dense: float, slim: float) -> tuple[Any, float | None]:
        sign = 1 if kind.larger else -1
        lead, left = sign * (dense - constant), sign * (slim - constant)
        if not lead > 0 or self.is_chance(kind):
            return "dense no better", None
        kept = left / lead
        if kept > KEPT:
            return "better", kept
        lost = [FAIR * one - other for one, other in zip(*self._both_leads(kind), strict=True)]
        if self._parts["dense"].rows < FEWEST or len(lost) < 3:
            return "not told", kept
        return ("no better" if statistics.mean(lost) > ERRORS * _error(lost) else "not told"), kept

    def _leads(self, kind: MetricKind, name: str) -> list[float]:
        return [lead for lead in self._every_lead(kind, name) if math.isfinite(lead)]

    def _both_leads(self, kind: MetricKind) -> tuple[list[float], list[float]]:
        both = zip(self._every_lead(kind, "dense"), self._every_lead(kind, "slim"), strict=True)
        told = [pair for pair in both if all(map(math.isfinite, pair))]
        return [pair[0] for pair in told], [pair[1] for pair in told]

    def _every_lead(self, kind: MetricKind, name: str) -> Iterator[float]:
        """By part of the test samples, how far the network is ahead of the constant output; NaN where it is unknown."""
        sign = 1 if kind.larger else -1
        own, constant = self._parts[name].values(kind.name), self._parts[self._best(kind)[0]].values(kind.name)
        for mine, its in zip(own, constant, strict=True):
            yield sign * (mine - (0.5 if kind.name == "auroc" and self._detects else its))

    @property
    def _detects(self) -> bool:
        return not isinstance(self._task, OwnTask) and settings_of(self._task).word == "anomaly"


class _Parts:
    """The metrics of a network over parts of the test samples, into which these are dealt in turn."""

    def __init__(self, task: Task) -> None:
        self._tallies = [Tally(task) for _ in range(PARTS)]
        self.rows = 0

    def add(self, output: Any, target: Any) -> None:
        rows = _rows(output)
        for number, tally in enumerate(self._tallies):
            start = (number - self.rows) % PARTS
            if start < rows:
                dealt = slice(start, None, PARTS)
                tally.add(_dealt(output, rows, dealt), _dealt(target, rows, dealt), len(range(start, rows, PARTS)))
        self.rows += rows

    def values(self, name: str) -> list[float]:
        found = [tally.metric(partial=True) if tally.weight else {} for tally in self._tallies]
        return [metric.get(name, math.nan) for metric in found]


def _rows(output: Any) -> int:
    return len(next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)))


def _dealt(value: Any, rows: int, part: slice) -> Any:
    return tree_map_only(Tensor, lambda one: one[part].contiguous() if one.ndim and len(one) == rows else one, value)


def _with_metrics(task: Task, names: Sequence[str]) -> Task:
    """The task, measured by these metrics only."""
    if isinstance(task, OwnTask):
        return replace(task, metrics={name: measure for name, measure in task.metrics.items() if name in names})
    return replace(settings_of(task), metrics=tuple(name for name in names if name != "loss"), rank_by=None)


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def require_better(results: Results) -> None:
    """Fail a run whose slim network is no better than a constant output, unless its recipe allows that.

    Raises:
        ConstantOutputError: it is not.
    """
    text = no_better(results)
    if text is not None and not results["recipe"].get("allow_constant"):
        raise ConstantOutputError(f"{text}; {WAY_OUT}")
