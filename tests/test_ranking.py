"""Which figure is better, against torchmetrics' own word, and how figures and differences are written."""

import pytest

from compress.ranking import ACCURACY, KINDS, LOSS, default_of, drop, kind_of, present, read
from compress.task_words import DEFAULT_METRICS, METRICS, WORDS
from compress.tasks import NamedTask, ranking
from compress.tasks.metrics import built


def names() -> list[tuple[str, str]]:
    own = {("classify", "accuracy"), ("language_model", "accuracy"), ("language_model", "perplexity")}
    return [(word, name) for word in WORDS for name in METRICS[word] if (word, name) not in own]


@pytest.mark.parametrize(("word", "name"), names())
@pytest.mark.filterwarnings("ignore:.*in the buffer:UserWarning")
def test_torchmetrics_agrees_on_what_is_better(word, name) -> None:
    metric = built(name, word, outputs=7)
    assert metric.higher_is_better in (None, KINDS[name].larger)
    # torchmetrics does not say it of these: 1 is perfect in all of them.
    unsaid = {"specificity", "jaccard", "explained_variance", "cohen_kappa", "matthews_corrcoef", "pearson", "spearman"}
    assert metric.higher_is_better is not None or (name in unsaid and KINDS[name].larger)


def test_all_metrics_of_tasks_are_known() -> None:
    assert {name for names in METRICS.values() for name in names} | {"loss"} == set(KINDS)
    for word in WORDS:
        assert set(DEFAULT_METRICS[word]) <= set(METRICS[word])


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("classify", "accuracy"),
        ("reconstruct", "loss"),
        ("multilabel", "f1"),
        ("regress", "mae"),
        ("forecast", "mae"),
        ("language_model", "perplexity"),
        ("anomaly", "auroc"),
    ],
)
def test_what_ranks_by_default(word, name) -> None:
    assert ranking(word) is KINDS[name]
    assert ranking(NamedTask(word)) is KINDS[name]
    assert ranking(NamedTask(word, metrics=())) is LOSS
    assert ranking(NamedTask(word, rank_by="loss")) is LOSS


@pytest.mark.parametrize(
    ("kind", "before", "after", "lost", "unit"),
    [
        (ACCURACY, 0.98, 0.975, 0.5, "points of accuracy"),
        (LOSS, 0.004, 0.005, 25, "% of the loss"),
        (KINDS["mae"], 2.0, 1.9, -5, "% of the mae"),
        (KINDS["r2"], 0.5, -0.1, 60, "points of r2"),
        (KINDS["psnr"], 24.0, 23.0, 1, "dB of psnr"),
        (kind_of("reward", "larger"), -50, -60, 20, "% of the reward"),
        (kind_of("cost"), 50, 60, 20, "% of the cost"),
    ],
)
def test_what_is_lost(kind, before, after, lost, unit) -> None:
    assert kind.drop(before, after) == pytest.approx(lost)
    assert kind.unit_of_drop == unit
    assert (kind.badness(after) > kind.badness(before)) == (lost > 0)


@pytest.mark.parametrize(
    ("kind", "value", "text", "figure"),
    [
        (ACCURACY, 0.98214, "98.21 %", "98.21"),
        (LOSS, 0.0046912, "0.004691", "4.69"),
        (KINDS["mae"], 0.0123456, "0.01235", "0.01235"),
        (KINDS["perplexity"], 3.45678, "3.457", "3.457"),
        (KINDS["psnr"], 24.126, "24.13 dB", "24.13"),
    ],
)
def test_how_figures_are_written(kind, value, text, figure) -> None:
    assert kind.text(value) == text
    assert kind.figure(kind.scaled(value)) == figure


@pytest.mark.parametrize(
    ("kind", "value", "error", "text"),
    [
        (ACCURACY, 0.98214, 0.0041, "98.2 ± 0.4 %"),
        (ACCURACY, 0.98214, 0.0031, "98.21 ± 0.31 %"),
        (ACCURACY, 0.98214, 0.00131, "98.21 ± 0.13 %"),
        (ACCURACY, 1.0, 0.184, "100 ± 18 %"),
        (ACCURACY, 0.9704, 0.0378, "97 ± 4 %"),
        (ACCURACY, 0.0, 0.00001, "0.000 ± 0.0010 %".replace("0.000 ", "0.0000 ")),
        (LOSS, 0.0046912, 0.00012, "0.00469 ± 0.00012"),
        (LOSS, 4.69123e-6, 3.4e-8, "4.691e-06 ± 3.4e-08"),
        (LOSS, 1.00215, 0.044, "1.00 ± 0.04"),
        (KINDS["perplexity"], 1002.15, 35.2, "1,002 ± 35"),
        (KINDS["psnr"], 24.126, 0.25, "24.13 ± 0.25 dB"),
        (LOSS, 0.0046912, 0.0, "0.004691"),  # an error of 0 says nothing
        (LOSS, 0.0046912, float("inf"), "0.004691"),
    ],
)
def test_the_digits_follow_the_error(kind, value, error, text) -> None:
    assert kind.text(value, error) == text


def test_results_that_do_not_say_it_are_read_by_the_name() -> None:
    assert read({"name": "accuracy"}) is ACCURACY
    assert read({"name": "gain", "better": "larger"}) == kind_of("gain", "larger")
    assert default_of({"loss": 1.0, "accuracy": 0.5}) is ACCURACY
    assert default_of({"loss": 1.0, "f1": 0.5}) is LOSS
    assert kind_of("f1", "smaller").form == "number"  # the user's own, of another meaning


def test_the_loss_stands_in_where_the_data_cannot_tell() -> None:
    before, after = {"loss": 1.0}, {"loss": 1.1}
    assert present(KINDS["auroc"], before) is LOSS
    assert drop(before, after, KINDS["auroc"]) == pytest.approx(10)
    assert drop({"loss": 0.0}, {"loss": 0.1}, LOSS) == pytest.approx(10)  # of 1, where it was 0


@pytest.mark.parametrize(
    ("loss", "heading", "figure"),
    [
        (0.00469, "loss (10^-3)", "4.69"),
        (0.0933, "loss (10^-3)", "93.30"),
        (1.00215, "loss", "1.002"),
        (1e-5, "loss", "1e-05"),
    ],
)
def test_thousandths_only_where_they_are_short(loss: float, heading: str, figure: str) -> None:
    kind = LOSS.fitting(LOSS.scaled(loss))
    assert (kind.heading, kind.figure(LOSS.scaled(loss))) == (heading, figure)
    assert ACCURACY.fitting(98.2) is ACCURACY
