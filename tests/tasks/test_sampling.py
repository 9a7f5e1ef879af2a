"""Sampling errors of metrics, from the outputs for single samples."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as known
from torch import nn

from compress.task_words import METRICS, WORDS, Word
from compress.tasks import NamedTask, OwnTask, intervals, sampling
from compress.tasks.sampling import Samples
from compress.train.metrics import evaluate

N = 300


class Fixed(nn.Module):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given


def watched(task: Any, output: torch.Tensor, target: Any, rows: int = 50) -> tuple[dict[str, float], Samples]:
    """An evaluation of these outputs, in batches."""
    seen = Samples(task)
    places = [slice(start, start + rows) for start in range(0, len(output), rows)]

    def part(whole: Any, place: slice) -> Any:
        return {key: value[place] for key, value in whole.items()} if isinstance(whole, dict) else whole[place]

    return evaluate(Fixed(), lambda: ((output[p], part(target, p)) for p in places), task, seen), seen


def case(word: Word, noise: float, seed: int = 0) -> tuple[torch.Tensor, Any]:
    """Outputs and targets: better ones with less noise."""
    chance = torch.Generator().manual_seed(7)
    other = torch.Generator().manual_seed(seed)

    def spread(*shape: int) -> torch.Tensor:
        return noise * torch.randn(N, *shape, generator=other)

    if word in ("classify", "multilabel"):
        truth = torch.randn(N, 7, generator=chance)
        return truth + spread(7), truth.argmax(1) if word == "classify" else (truth > 0).long()
    if word == "language_model":
        truth = torch.randn(N, 6, 5, generator=chance)
        return truth + spread(6, 5), truth.argmax(-1)
    if word == "anomaly":
        inputs, flags = torch.randn(N, 4, generator=chance), (torch.arange(N) % 10 == 0).float()
        return inputs + spread(4) * (1 + flags[:, None]), {"input": inputs, "anomaly": flags}
    truth = torch.rand(N, 1, 12, 12, generator=chance) if word == "reconstruct" else torch.randn(N, 3, generator=chance)
    return (truth + spread(*truth.shape[1:])).clamp(*((0, 1) if word == "reconstruct" else (-9, 9))), truth


@pytest.mark.parametrize("word", WORDS)
def test_every_metric_of_every_task_has_an_interval_around_it(word: Word, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "RESAMPLES", 40)
    task = NamedTask(word, metrics=METRICS[word])
    dense, before = watched(task, *case(word, 0.5))
    slim, after = watched(task, *case(word, 0.6, seed=1))
    errors, changes = after.intervals(), after.changes_from(before)
    assert errors
    assert set(errors) == set(changes) == set(slim)
    for name, (low, high, method) in errors.items():
        assert low < slim[name] < high or name == "worst_class_accuracy", name  # the worst of resamples is worse
        assert method in ("wilson", "bootstrap")
        width = changes[name].high - changes[name].low
        assert changes[name].low - width < slim[name] - dense[name] < changes[name].high + width, name
        assert changes[name].method in ("agresti_min", "paired_bootstrap")


def test_an_accuracy_has_the_interval_of_its_count() -> None:
    output, labels = case("classify", 0.5)
    right = int((output.argmax(1) == labels).sum())
    metric, seen = watched("classify", output, labels)
    assert seen.intervals()["accuracy"] == intervals.wilson(right, N)
    assert metric["accuracy"] == right / N


def test_two_accuracies_are_compared_sample_by_sample() -> None:
    (first, labels), (second, _) = case("classify", 0.5), case("classify", 0.6, seed=1)
    was, now = first.argmax(1) == labels, second.argmax(1) == labels
    change = watched("classify", second, labels)[1].changes_from(watched("classify", first, labels)[1])["accuracy"]
    assert change == intervals.paired_shares(int((now & ~was).sum()), int((was & ~now).sum()), N)


@pytest.mark.parametrize("word", ["regress", "language_model", "reconstruct"])
def test_a_loss_is_compared_by_the_differences_of_its_samples(word: Word) -> None:
    """Two networks whose errors are nearly the same: the difference is known far better than the losses are."""
    output, target = case(word, 0.5)
    _, dense = watched(word, output, target)
    _, slim = watched(word, output + 0.01 * torch.randn(output.shape), target)
    change, error = slim.changes_from(dense)["loss"], slim.intervals()["loss"]
    assert change.high - change.low < 0.3 * (error.high - error.low)


def test_the_error_of_a_loss_is_that_of_a_mean() -> None:
    output, target = case("regress", 0.5)
    losses = ((output - target) ** 2).mean(1).double().numpy()
    low, high, _ = watched("regress", output, target)[1].intervals()["loss"]
    assert (high - low) / 2 == pytest.approx(intervals.Z * losses.std() / math.sqrt(N), rel=0.1)


def test_a_metric_that_is_no_mean_is_computed_again_for_each_resample() -> None:
    output, target = case("anomaly", 0.5)
    errors = ((output - target["input"]) ** 2).mean(1).numpy()
    flags = target["anomaly"].numpy()
    replicates = [known.roc_auc_score(flags[rows], errors[rows]) for rows in intervals.Bootstrap(N, 200).rows()]
    low, high, method = watched("anomaly", output, target)[1].intervals()["auroc"]
    assert (low, high) == pytest.approx(tuple(np.percentile(replicates, [2.5, 97.5])))
    assert method == "bootstrap"


@pytest.mark.parametrize("rows", [17, 300])
def test_batches_change_nothing(rows: int) -> None:
    task = NamedTask("multilabel", metrics=("f1", "accuracy"))
    output, target = case("multilabel", 0.5)
    found, expected = watched(task, output, target, rows)[1], watched(task, output, target)[1]
    assert found.intervals() == expected.intervals()


def test_samples_in_another_order_are_not_paired() -> None:
    output, target = case("regress", 0.5)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    _, dense = watched("regress", output, target)
    _, slim = watched("regress", (output + 0.01)[order], target[order])
    low, high, method = slim.changes_from(dense)["loss"]
    error = slim.intervals()["loss"]
    assert method == "bootstrap"
    assert high - low == pytest.approx(math.sqrt(2) * (error.high - error.low), rel=0.2)


def test_labels_of_one_picture_are_not_drawn_one_by_one() -> None:
    """Of a segmentation, whole pictures are right or wrong: 30 of them tell less than their 30 x 64 places."""
    labels = torch.zeros(30, 8, 8, dtype=torch.int64)
    wrong = torch.arange(30) % 3 == 0
    logits = torch.stack([~wrong, wrong], 1).float()[:, :, None, None].expand(30, 2, 8, 8)
    task = NamedTask("classify", metrics=("accuracy", "f1"))
    found = watched(task, logits, labels)[1].intervals()
    assert set(found) == {"loss", "accuracy"}
    assert found["accuracy"].method == "bootstrap"
    error = math.sqrt(2 / 9 / 30)
    assert (found["accuracy"].high - found["accuracy"].low) / 2 == pytest.approx(intervals.Z * error, rel=0.15)


def test_ignored_labels_do_not_count() -> None:
    output, labels = case("classify", 0.5)
    task = NamedTask("classify", ignore_index=3)
    right, counted = output.argmax(1) == labels, labels != 3
    found = watched(task, output, labels)[1].intervals()["accuracy"]
    assert found == intervals.wilson(int((right & counted).sum()), int(counted.sum()))


def own(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).abs().mean()


@pytest.mark.parametrize(("rows", "told"), [(10, True), (100, False)])
def test_a_task_of_the_users_own_is_resampled_by_batches_if_there_are_enough(rows: int, told: bool) -> None:
    output, target = case("regress", 0.5)
    metric, seen = watched(OwnTask(own, {"far": own}), output, target, rows)
    found: Mapping[str, intervals.Interval] = seen.intervals()
    assert set(found) == ({"loss", "far"} if told else set())
    if told:
        assert found["loss"].low < metric["loss"] < found["loss"].high
