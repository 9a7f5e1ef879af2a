"""Metrics over a whole data set against scikit-learn and numpy, whatever the batch size."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import DataError
from compress.task_words import METRICS
from compress.tasks import NamedTask, OwnTask
from compress.train.metrics import evaluate, headline

sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")

N = 97


class Given(nn.Module):
    """Returns its inputs, which are the outputs of a network here."""

    def forward(self, x):
        return x


def measured(task, output, target, size=N, **settings):
    batches = list(zip(output.split(size), _split(target, size), strict=True))
    return evaluate(Given(), lambda: batches, task, **settings)


def _split(target, size):
    if isinstance(target, dict):
        parts = {name: tensor.split(size) for name, tensor in target.items()}
        return [dict(zip(parts, rows, strict=True)) for rows in zip(*parts.values(), strict=True)]
    return target.split(size)


def data(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(count):
    logits = data(N, count)
    labels = (logits + data(N, count, seed=1)).argmax(1)
    return logits, labels


def expected_of_classes(logits, labels):
    share, guess, truth = logits.softmax(1).double().numpy(), logits.argmax(1).numpy(), labels.numpy()
    count = logits.shape[1]
    macro = {"average": "binary" if count == 2 else "macro", "zero_division": 0}
    one_hot, scores = (truth == 1, share[:, 1]) if count == 2 else (np.eye(count)[truth], share)
    matrix = sk.confusion_matrix(truth, guess)
    wrong, right = matrix.sum(0) - matrix.diagonal(), matrix.diagonal()
    specificity = 1 - wrong / (matrix.sum() - matrix.sum(1))
    return {
        "accuracy": sk.accuracy_score(truth, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
        "worst_class_accuracy": (right / matrix.sum(1)).min(),
        "f1": sk.f1_score(truth, guess, **macro),
        "precision": sk.precision_score(truth, guess, **macro),
        "recall": sk.recall_score(truth, guess, **macro),
        "jaccard": sk.jaccard_score(truth, guess, **macro),
        "specificity": specificity[1] if count == 2 else specificity.mean(),
        "auroc": sk.roc_auc_score(one_hot, scores),
        "average_precision": sk.average_precision_score(one_hot, scores),
        "matthews_corrcoef": sk.matthews_corrcoef(truth, guess),
        "cohen_kappa": sk.cohen_kappa_score(truth, guess),
        **({"top_5_accuracy": sk.top_k_accuracy_score(truth, share, k=5)} if count > 5 else {}),
    }


@pytest.mark.parametrize("count", [2, 3, 7])
def test_of_classes_as_in_scikit_learn(count) -> None:
    logits, labels = classes(count)
    expected = expected_of_classes(logits, labels)
    found = measured(NamedTask("classify", metrics=tuple(expected)), logits, labels, size=10)
    loss = found.pop("loss")
    assert found == pytest.approx(expected, abs=1e-6)
    assert loss == pytest.approx(sk.log_loss(labels, logits.double().softmax(1)))


def test_the_calibration_error_is_a_mean_over_bins_of_confidence() -> None:
    logits, labels = classes(3)
    sure, guess = logits.double().softmax(1).max(1)
    bins = (sure * 15).ceil().long()
    here = [bins == number for number in bins.unique()]
    gaps = [abs((guess == labels)[rows].double().mean() - sure[rows].mean()) * rows.sum() for rows in here]
    found = measured(NamedTask("classify", metrics=("calibration_error",)), logits, labels, size=10)
    assert found["calibration_error"] == pytest.approx(float(sum(gaps)) / N)


@pytest.mark.parametrize(
    "word", ["multilabel", "classify", "regress", "reconstruct", "forecast", "language_model", "anomaly"]
)
def test_the_batch_size_changes_nothing(word) -> None:
    output = data(N, 7)
    target = {
        "classify": classes(7)[1],
        "multilabel": (data(N, 7, seed=3) > 0).long(),
        "language_model": torch.randint(7, (N,), generator=torch.Generator().manual_seed(0)),
        "anomaly": {"input": data(N, 7, seed=4), "anomaly": (data(N, seed=5) > 1).float()},
    }.get(word, data(N, 7, seed=3))
    names = tuple(name for name in METRICS[word] if name not in ("psnr", "ssim"))
    if word == "language_model":
        output, target = data(N, 5, 7), torch.randint(-1, 7, (N, 5), generator=torch.Generator().manual_seed(0))
        task = NamedTask(word, metrics=names, ignore_index=-1)
    else:
        task = NamedTask(word, metrics=names)
    whole = measured(task, output, target)
    assert set(whole) == {"loss", *names}
    for size in (1, 8, 96):
        assert measured(task, output, target, size) == pytest.approx(whole, rel=1e-9, abs=1e-12)


def test_of_several_labels_as_in_scikit_learn() -> None:
    logits, present = data(N, 4), (data(N, 4) + data(N, 4, seed=1) > 0.5).long()
    share, guess, truth = logits.sigmoid().numpy(), (logits > 0).numpy(), present.numpy()
    macro = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy": (guess == truth).mean(),
        "exact_match": sk.accuracy_score(truth, guess),
        "f1": sk.f1_score(truth, guess, **macro),
        "precision": sk.precision_score(truth, guess, **macro),
        "recall": sk.recall_score(truth, guess, **macro),
        "jaccard": sk.jaccard_score(truth, guess, **macro),
        "auroc": sk.roc_auc_score(truth, share),
        "average_precision": sk.average_precision_score(truth, share),
    }
    found = measured(NamedTask("multilabel", metrics=tuple(expected)), logits, present, size=10)
    assert found == pytest.approx({"loss": found["loss"], **expected}, abs=1e-6)
    assert list(measured("multilabel", logits, present)) == ["loss", "f1", "auroc"]


def test_labels_that_are_not_counted_change_no_metric() -> None:
    logits, present = data(N, 4), (data(N, 4, seed=1) > 0).long()
    unknown = torch.rand(N, 4, generator=torch.Generator().manual_seed(2)) < 0.2
    found = measured(
        NamedTask("multilabel", metrics=("auroc",), ignore_index=-1), logits, present.masked_fill(unknown, -1), size=10
    )
    by_label = [sk.roc_auc_score(present[~unknown[:, i], i], logits[~unknown[:, i], i]) for i in range(4)]
    assert found["auroc"] == pytest.approx(np.mean(by_label))


@pytest.mark.parametrize("word", ["regress", "forecast"])
@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 3)])
def test_of_values_as_in_scikit_learn(word, shape) -> None:
    output, target = data(*shape), data(*shape) + 0.5 * data(*shape, seed=1)
    said, truth = output.double().numpy(), target.double().numpy()
    average = {"multioutput": "uniform_average" if word == "regress" else "variance_weighted"}
    flat = np.atleast_2d(said.T), np.atleast_2d(truth.T)
    expected = {
        "mae": sk.mean_absolute_error(truth, said),
        "mse": sk.mean_squared_error(truth, said),
        "rmse": math.sqrt(sk.mean_squared_error(truth.flatten(), said.flatten())),
        "mape": sk.mean_absolute_percentage_error(truth, said),
        "r2": sk.r2_score(truth, said, **average),
        "explained_variance": sk.explained_variance_score(truth, said, **average),
        "pearson": np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*flat, strict=True)]),
    }
    found = measured(NamedTask(word, metrics=tuple(expected)), output, target, size=10)
    assert found == pytest.approx({"loss": expected["mse"], **expected}, rel=1e-6)


def test_of_images_as_their_formulas_say() -> None:
    images = torch.rand(9, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    noisy = images + 0.1 * data(9, 1, 16, 16)
    found = measured(NamedTask("reconstruct", metrics=("psnr", "ssim")), noisy, images, size=4)
    assert found["psnr"] == pytest.approx(-10 * math.log10(found["loss"]))
    assert measured(NamedTask("reconstruct", metrics=("ssim",)), images, images)["ssim"] == pytest.approx(1)
    assert 0 < found["ssim"] < 1
    with pytest.raises(DataError, match=r"psnr is of images \[N, C, H, W\] in \[0, 1\]"):
        measured(NamedTask("reconstruct", metrics=("psnr",)), noisy, noisy)


def test_the_perplexity_is_of_the_mean_loss_a_token() -> None:
    logits = data(9, 5, 7)
    tokens = torch.randint(7, (9, 5), generator=torch.Generator().manual_seed(1))
    tokens[0, 1:] = -100  # the batches have different numbers of tokens
    counted = tokens != -100
    losses = -logits.double().log_softmax(-1)[counted].gather(1, tokens[counted][:, None])
    found = measured(NamedTask("language_model", metrics=("perplexity", "accuracy")), logits, tokens, size=2)
    assert found["perplexity"] == pytest.approx(float(losses.mean().exp()))
    assert found["accuracy"] == pytest.approx(float((logits.argmax(-1) == tokens)[counted].double().mean()))
    from torchmetrics.text import Perplexity

    metric = Perplexity(ignore_index=-100)
    assert found["perplexity"] == pytest.approx(float(metric(logits, tokens)), rel=1e-5)


def test_an_anomaly_is_what_is_reconstructed_badly() -> None:
    inputs, output = data(N, 3) * 30, data(N, 3, seed=1)
    flags = (data(N, seed=2) > 1).long()
    errors = ((inputs - output) ** 2).mean(1).numpy()
    found = measured(
        NamedTask("anomaly", metrics=("auroc", "average_precision")), output, {"input": inputs, "anomaly": flags}, 10
    )
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(flags, errors))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(flags, errors))
    assert found["loss"] == pytest.approx(errors[flags.numpy() == 0].mean(), rel=1e-6)


def test_a_class_that_no_sample_has_is_left_out_of_means() -> None:
    logits, labels = classes(4)
    labels = labels.clamp(max=2)
    found = measured(
        NamedTask("classify", metrics=("auroc", "balanced_accuracy", "worst_class_accuracy")), logits, labels, 10
    )
    share, guess = logits.softmax(1), logits.argmax(1)
    assert found["auroc"] == pytest.approx(np.mean([sk.roc_auc_score(labels == c, share[:, c]) for c in range(3)]))
    recall = [float((guess == c)[labels == c].double().mean()) for c in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recall))
    assert found["worst_class_accuracy"] == pytest.approx(min(recall))


@pytest.mark.parametrize(
    ("task", "target"),
    [
        (NamedTask("classify", metrics=("auroc",)), torch.zeros(N, dtype=torch.int64)),
        (NamedTask("multilabel"), torch.ones(N, 2)),
        (NamedTask("anomaly"), torch.zeros(N, 2)),
        (NamedTask("regress", metrics=("pearson",)), torch.zeros(N, 2)),
    ],
)
def test_what_the_samples_cannot_tell_is_an_error_or_left_out_of_a_part(task, target) -> None:
    output = data(N, 2)
    with pytest.raises(DataError, match=r"auroc compares samples|not a number"):
        measured(task, output, target)
    assert "auroc" not in measured(task, output, target, partial=True)


def test_a_metric_of_ones_own_stays_a_mean_over_samples() -> None:
    task = OwnTask(nn.functional.mse_loss, {"gain": lambda output, target: output.mean()})
    output = data(N, 3)
    found = measured(task, output, data(N, 3, seed=1), 10)
    assert found["gain"] == pytest.approx(float(output.double().mean()))


def test_the_headline_is_what_ranks_in_its_unit() -> None:
    from compress.ranking import KINDS

    assert headline({"loss": 0.004, "accuracy": 0.98}) == 98
    assert headline({"loss": 0.004, "mae": 0.5}) == 4
    assert headline({"loss": 0.004, "mae": 0.5}, KINDS["mae"]) == 0.5
    assert headline({"loss": 0.004}, KINDS["auroc"]) == 4
