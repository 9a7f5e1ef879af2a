"""What each test sample contributes to the metrics of a network, and the sampling errors that follow from it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.errors import CompressError
from compress.tasks import targets
from compress.tasks.intervals import Bootstrap, Interval, Values, between, paired_shares, ratios, wilson
from compress.tasks.kinds import IGNORED, NamedTask, OwnTask, Task, metrics_of, settings_of
from compress.tasks.metrics import meter

FEWEST = 10
"""The fewest units that are resampled: samples, or, with a task of the user's own, batches."""

VALUES, RANKED_VALUES = 2_000_000, 200_000
"""The most outputs that are kept for metrics which are no means over samples; of those that sort them, fewer."""

RESAMPLES = 200
"""For such metrics, each of which is computed again for each resample: some seconds for the largest."""

_RANKED = ("auroc", "average_precision", "spearman")

_LEAST = 1.17e-6  # the smallest divisor of torchmetrics' percentage errors

Part = tuple[Tensor, Tensor]
"""(the sum over what counts of each sample, the number of what counts), both [N]; a metric is sum / number."""


class Samples:
    """Keeps what the samples of an evaluation contribute: a `seen` of `compress.train.metrics.evaluate`."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._parts: dict[str, list[Values]] = {}  # of metrics that are means, or functions of one: [N, 2]
        self._marks: list[Values] = []  # of the targets: whether two networks were given the same samples in turn
        self._sides: dict[str, _Sides] = {}  # of the other metrics
        self._single = True  # whether each sample has one label at most

    def __call__(self, output: Any, target: Any) -> None:
        self._marks.append(_mark(target))
        if isinstance(self._task, OwnTask):
            self._add_batch(self._task, output, target)
            return
        named = settings_of(self._task)
        for name, (sums, counts) in _parts(named, output, target):
            both = torch.stack([sums.double(), counts.double()], 1).cpu().numpy()
            self._single &= bool((both[:, 1] <= 1).all())
            self._parts.setdefault(name, []).append(both)
        for name in metrics_of(named):
            if name not in self._parts:
                self._sides.setdefault(name, _Sides(name, named)).add(output, target)

    def _add_batch(self, task: OwnTask, output: Any, target: Any) -> None:
        rows = next((len(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.ndim), 1)
        for name, measure in {"loss": task.loss, **task.metrics}.items():
            value = float(measure(output, target))
            self._parts.setdefault(name, []).append(np.array([[value * rows, rows]], dtype=np.float64))

    def intervals(self) -> dict[str, Interval]:
        """By metric, as far as the samples tell."""
        found = {name: self._interval(name, self._part(name)) for name in self._parts}
        found |= {
            name: between(one, "bootstrap")
            for name, sides in self._sides.items()
            if (one := sides.replicates()) is not None
        }
        return {name: interval for name, interval in found.items() if interval is not None}

    def changes_from(self, dense: "Samples") -> dict[str, Interval]:
        """By metric: of this network's figure minus the dense network's, paired where both saw the same samples."""
        same = np.array_equal(np.concatenate(self._marks), np.concatenate(dense._marks), equal_nan=True)
        found = {name: self._change(name, dense, same=same) for name in self._parts}
        for name, sides in self._sides.items():
            before, after = dense._sides[name].replicates(), sides.replicates(0 if same else 1)
            if before is not None and after is not None:
                found[name] = between(after - before, "paired_bootstrap" if same else "bootstrap")
        return {name: interval for name, interval in found.items() if interval is not None}

    def _part(self, name: str) -> Values:
        found: Values = np.concatenate(self._parts[name])
        return found

    def _is_share(self, name: str) -> bool:
        """Whether it is a share of samples, each of which is right or not."""
        return name in ("accuracy", "top_5_accuracy") and self._single and not isinstance(self._task, OwnTask)

    def _interval(self, name: str, part: Values) -> Interval | None:
        if self._is_share(name):
            return wilson(*part.sum(0).tolist())
        return between(_replicates(name, part), "bootstrap") if len(part) >= FEWEST else None

    def _change(self, name: str, dense: "Samples", *, same: bool) -> Interval | None:
        after, before = self._part(name), dense._part(name)
        if same and self._is_share(name):
            ahead = after[:, 0] - before[:, 0]
            return paired_shares(float((ahead > 0).sum()), float((ahead < 0).sum()), float(after[:, 1].sum()))
        if min(len(after), len(before)) < FEWEST:
            return None
        found = _replicates(name, after, seed=0 if same else 1) - _replicates(name, before)
        return between(found, "paired_bootstrap" if same else "bootstrap")


def _replicates(name: str, part: Values, seed: int = 0) -> Values:
    return ratios(Bootstrap(len(part), seed=seed).sums(part), _TRANSFORMS.get(name, np.asarray))


def _mark(target: Any) -> Values:
    """A number for each sample of the batch, by what its target is."""
    found = target.get("input", target) if isinstance(target, Mapping) else target
    leaf = next((leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor) and leaf.ndim), torch.zeros(1))
    marks: Values = leaf.detach().double().reshape(len(leaf), -1).sum(1).cpu().numpy()
    return marks


# --- metrics that are means over the samples, or functions of such a mean ---


def _parts(named: NamedTask, output: Any, target: Any) -> Iterator[tuple[str, Part]]:
    wanted = metrics_of(named)
    if named.word == "classify":
        yield from _of_classes(named, output, target)
    elif named.word == "multilabel":
        logits, present, counted = targets.several_labels(output, target, named.ignore_index)
        losses = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
        yield "loss", _counted(losses, counted)
        if "accuracy" in wanted:
            yield "accuracy", _counted((logits > 0) == (present > 0.5), counted)
    elif named.word == "language_model":
        logits, tokens = targets.tokens(output, target, named.ignore_index)
        losses = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none").view(tokens.shape)
        part = _counted(losses, tokens != IGNORED)
        yield from ((name, part) for name in ("loss", *wanted) if name in ("loss", "perplexity"))
        if "accuracy" in wanted:
            yield "accuracy", _counted(logits.argmax(-1) == tokens, tokens != IGNORED)
    elif named.word == "anomaly":
        inputs, flags = targets.anomalies(target)
        errors = targets.errors_by_sample(*targets.values(output, inputs, "anomaly"))
        yield "loss", _counted(errors, ~flags)
    else:
        yield from _of_values(named, output, target)


def _of_classes(named: NamedTask, output: Any, target: Any) -> Iterator[tuple[str, Part]]:
    logits = targets.class_logits(output)
    labels = targets.class_labels(logits, target, named.ignore_index)
    counted = labels != IGNORED
    yield "loss", _counted(F.cross_entropy(logits, labels, reduction="none"), counted)
    if "accuracy" in metrics_of(named):
        yield "accuracy", _counted(logits.argmax(1) == labels, counted)
    if "top_5_accuracy" in metrics_of(named) and logits.shape[1] > 5:
        among = (logits.topk(5, 1).indices == labels.unsqueeze(1)).any(1)
        yield "top_5_accuracy", _counted(among, counted)


def _of_values(named: NamedTask, output: Any, target: Any) -> Iterator[tuple[str, Part]]:
    said, wanted = targets.values(output, target, named.word)
    for name in ("loss", *metrics_of(named)):
        if name == "ssim":
            yield name, _whole(_ssim(said, wanted))
        elif name in _ERRORS:
            yield name, _whole(_ERRORS[name](said, wanted))


def _ssim(said: Tensor, wanted: Tensor) -> Tensor:
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(said, wanted, data_range=1.0, reduction="none")
    return found if isinstance(found, Tensor) else found[0]


def _squares(said: Tensor, wanted: Tensor) -> Tensor:
    return (said - wanted).square()


_ERRORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    **dict.fromkeys(("loss", "mse", "rmse", "psnr"), _squares),
    "mae": lambda said, wanted: (said - wanted).abs(),
    "mape": lambda said, wanted: (said - wanted).abs() / wanted.abs().clamp(min=_LEAST),
    "smape": lambda said, wanted: 2 * (said - wanted).abs() / (said.abs() + wanted.abs()).clamp(min=_LEAST),
}

_TRANSFORMS: Mapping[str, Callable[[Values], Values]] = {
    "rmse": np.sqrt,
    "psnr": lambda error: -10 * np.log10(error),
    "perplexity": lambda loss: np.exp(np.minimum(loss, 709.0)),
}


def _counted(values: Tensor, counted: Tensor) -> Part:
    values, counted = values.reshape(len(values), -1).double(), counted.reshape(len(counted), -1)
    return torch.where(counted, values, 0.0).sum(1), counted.sum(1)


def _whole(values: Tensor) -> Part:
    means = values.reshape(len(values), -1).mean(1)
    return means, torch.ones_like(means)


# --- all others ---


@dataclass
class _Sides:
    """What a metric compares, sample by sample, to compute it again for resamples."""

    name: str
    task: NamedTask

    def __post_init__(self) -> None:
        self._said: list[Tensor] = []
        self._truth: list[Tensor] = []
        self._kept = 0
        self._usable = True
        self._found: dict[int, Values | None] = {}

    def add(self, output: Any, target: Any) -> None:
        if not self._usable:
            return
        said, truth = meter(self.name, self.task).sides(output, target)
        self._kept += said.numel()
        # Labels of the same sample, as those of its places, are not drawn independently.
        places = self.task.word == "classify" and targets.class_logits(output).ndim > 2
        alike = not self._said or said.shape[1:] == self._said[0].shape[1:]
        most = RANKED_VALUES if self.name in _RANKED else VALUES
        if places or not alike or self._kept > most:
            self._usable, self._said, self._truth = False, [], []
        else:
            self._said.append(said.cpu())
            self._truth.append(truth.cpu())

    def replicates(self, seed: int = 0) -> Values | None:
        """[RESAMPLES], NaN where a resample cannot tell; None where the samples were not kept."""
        if seed not in self._found:
            enough = self._usable and sum(map(len, self._truth)) >= FEWEST
            self._found[seed] = self._replicates(seed) if enough else None
        return self._found[seed]

    def _replicates(self, seed: int) -> Values:
        said, truth = torch.cat(self._said), torch.cat(self._truth)
        found = []
        for rows in Bootstrap(len(said), RESAMPLES, seed).rows():
            drawn, one = torch.from_numpy(rows), meter(self.name, self.task)
            one.add(said[drawn], truth[drawn])
            try:
                found.append(one.compute())
            except CompressError:  # such as AUROC without an anomaly
                found.append(math.nan)
        return np.array(found)
