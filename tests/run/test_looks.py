"""What single samples show: counts, values, series and ROC curves against numpy and scikit-learn."""

import numpy as np
import pytest
import torch

from compress.run.looks import POINTS, SERIES, VALUES, Looks, compared
from compress.tasks import NamedTask


def seen(task, outputs, target, samples=None, size=7):
    looks = Looks(task, samples)
    if isinstance(target, dict):
        rows_of = zip(*(one.split(size) for one in target.values()), strict=True)
        parts = [dict(zip(target, rows, strict=True)) for rows in rows_of]
    else:
        parts = target.split(size)
    for output, rows in zip(outputs.split(size), parts, strict=True):
        looks(output, rows)
    return looks


def test_right_answers_by_class_with_their_names() -> None:
    labels = torch.arange(30) % 3
    dense, slim = torch.eye(3)[labels], torch.eye(3)[torch.where(torch.arange(30) < 6, 0, labels)]
    looks = [seen("classify", output, labels) for output in (dense, slim)]
    found = compared(*looks, names=("cat", "dog", "owl"))
    assert found["by_class"] == {"of": [10] * 3, "dense": [10] * 3, "slim": [10, 8, 8], "names": ["cat", "dog", "owl"]}
    assert found["confusion"]["slim"] == [[10, 0, 0], [2, 8, 0], [2, 0, 8]]
    assert "names" not in compared(*looks, names=("cat",))["by_class"]  # of other classes


def test_a_single_logit_and_ignored_labels_are_counted_right() -> None:
    labels = torch.tensor([0, 1, 1, 255])
    looks = seen(NamedTask("classify", ignore_index=255), torch.tensor([-1.0, 1.0, -1.0, 1.0]), labels)
    assert compared(looks, looks)["by_class"] == {"of": [1, 2], "dense": [1, 1], "slim": [1, 1]}


def test_a_label_is_counted_where_it_is_present_and_found() -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 3, (50, 4)), rng.normal(size=(50, 4))  # 2: not known
    task = NamedTask("multilabel", ignore_index=2)
    looks = seen(task, torch.from_numpy(logits), torch.from_numpy(labels))
    found = compared(looks, looks, names=[*"abcd"])["by_class"]
    assert found["of"] == (labels == 1).sum(0).tolist()
    assert found["slim"] == ((labels == 1) & (logits > 0)).sum(0).tolist()
    assert found["names"] == [*"abcd"]


@pytest.mark.parametrize("samples", [None, 5 * VALUES])
def test_values_are_spread_over_the_test_set(samples) -> None:
    target = torch.arange(5.0 * VALUES)
    looks = seen("regress", (target + 1)[:, None], target, samples, size=333)
    found = compared(looks, looks)["values"]
    step = 1 if samples is None else 5
    assert found["target"] == list(range(0, step * VALUES, step))
    assert found["dense"] == [value + 1 for value in found["target"]]


def test_a_loader_that_shuffles_shows_no_pairs() -> None:
    values = torch.arange(10.0)
    assert "values" not in compared(seen("regress", values, values), seen("regress", values, values.flip(0)))


def test_a_few_series() -> None:
    target = torch.randn(40, 6, 2)
    looks = seen("forecast", target * 2, target, 40)
    found = compared(looks, looks)["series"]
    assert [one["number"] for one in found] == [0, 10, 20, 30]
    assert len(found) == SERIES
    assert found[1]["dense"] == pytest.approx((2 * target[10, :, 0]).tolist(), rel=1e-4)


@pytest.mark.parametrize("samples", [60, 5000])
def test_the_roc_curve(samples) -> None:
    sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    torch.manual_seed(0)
    flags = (torch.rand(samples) < 0.2).float()
    inputs = torch.randn(samples, 4) * (1 + flags[:, None])
    output = inputs * 0
    looks = seen("anomaly", output, {"input": inputs, "anomaly": flags}, size=100)
    found = compared(looks, looks)["roc"]["dense"]
    errors = inputs.square().mean(1)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(flags, errors))
    assert len(found["found"]) <= POINTS
    # The points kept are on the curve, and the area below them is nearly all of it.
    alarms, hits, _ = sk.roc_curve(flags, errors, drop_intermediate=False)
    for alarm, hit in zip(found["false_alarms"], found["found"], strict=True):
        assert np.min(np.abs(alarms - alarm) + np.abs(hits - hit)) < 1e-4
    assert np.trapezoid(found["found"], found["false_alarms"]) == pytest.approx(found["auroc"], abs=0.01)
    whole = {"input": inputs, "anomaly": flags * 0}
    assert "roc" not in compared(*[seen("anomaly", output, whole, size=100)] * 2)
