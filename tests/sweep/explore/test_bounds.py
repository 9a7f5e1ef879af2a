"""Bounds as people write them, and which of them make sense together."""

import pytest

from compress.errors import InputError
from compress.ranking import ACCURACY, KINDS, LOSS, kind_of
from compress.sweep.explore.bounds import goal_of, measured, parse, quality, require_reach, shown, tolerated
from compress.sweep_results import BoundKind

DENSE = {"metric": {"loss": 0.2, "accuracy": 0.98}, "params": 1000, "nonzero": 990, "macs": 500}


@pytest.mark.parametrize(
    ("kind", "text", "limit"),
    [
        ("loss", "1.5x", 0.3),
        ("loss", " 1x ", 0.2),
        ("loss", "0.25", 0.25),
        ("loss", "2.5e-1", 0.25),
        ("drop", "0.5", 2.5),  # wrong answers in percent
        ("drop", "0", 2.0),
        ("params", "0.5x", 500),
        ("params", "300", 300),
        ("macs", ".1x", 50),
    ],
)
def test_a_bound_is_a_multiple_of_the_dense_network_or_a_number(kind: BoundKind, text: str, limit: float) -> None:
    bound = parse(kind, text)
    assert bound.limit(measured(kind, DENSE, ACCURACY), ACCURACY) == pytest.approx(limit)
    assert bound.text == f"--max-{kind} {text.strip()}"


def test_what_is_measured_is_smaller_where_a_network_is_better() -> None:
    found = {"metric": {"loss": 0.3, "accuracy": 0.975}, "params": 500, "macs": 51, "latency": {"ratio": 0.5}}
    kinds: tuple[BoundKind, ...] = ("loss", "drop", "params", "macs", "latency")
    assert [measured(kind, found, ACCURACY) for kind in kinds] == pytest.approx([0.3, 2.5, 500, 51, 0.5])
    assert parse("latency", "0.5x").limit(1.0, ACCURACY) == 0.5


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("loss", "much", "--max-loss much: give a number, or a multiple"),
        ("loss", "-1", "give a number"),
        ("loss", "1e999", "give a number"),
        ("loss", "0.9x", "the dense network itself has 1x"),
        ("drop", "1.1x", "what may be lost of the dense network's metric, in points"),
        ("drop", "100", "in points or percent"),
        ("latency", "3", "milliseconds differ by machine"),
        ("params", "1x", "the search is for a smaller network"),
        ("macs", "0", "the search is for a smaller network"),
    ],
)
def test_what_bounds_nothing_is_refused(kind: BoundKind, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(kind, text)


def test_the_kind_of_bound_says_what_is_searched_for() -> None:
    loss, drop, params, macs = (
        parse("loss", "1.1x"),
        parse("drop", "1"),
        parse("params", "9"),
        parse("macs", "9"),
    )
    assert goal_of([loss]) == "smallest"
    assert goal_of([loss, drop]) == "smallest"
    assert goal_of([params, macs]) == "best"
    assert goal_of([], knee=True) == "knee"
    with pytest.raises(InputError, match=r"--max-loss 1.1x asks for the smallest network and --max-params 9"):
        goal_of([loss, params])
    with pytest.raises(InputError, match="nothing bounds the search"):
        goal_of([])
    with pytest.raises(InputError, match="--knee and --max-params 9"):
        goal_of([params], knee=True)


def test_bounds_that_decide_nothing_are_refused() -> None:
    require_reach([parse("loss", "1x"), parse("drop", "0"), parse("params", "999")], DENSE, ACCURACY)
    with pytest.raises(InputError, match=r"even the dense network misses it, with 0.2 on the held-out"):
        require_reach([parse("loss", "0.19")], DENSE, ACCURACY)
    with pytest.raises(InputError, match="the dense network is already within it, with 1,000"):
        require_reach([parse("params", "1000")], DENSE, ACCURACY)


def test_what_is_tolerated_is_a_loss_or_points_of_accuracy() -> None:
    assert tolerated("1.05x").limit(0.2, ACCURACY) == pytest.approx(0.21)
    assert tolerated("0.5").limit(2.0, ACCURACY) == pytest.approx(2.5)
    assert tolerated("0.5").text == "--tolerate 0.5"
    for text, message in (("0.5x", "the dense network itself"), ("some", "--tolerate some: give a number")):
        with pytest.raises(InputError, match=message):
            tolerated(text)


@pytest.mark.parametrize(
    ("ranked", "dense", "limit"),
    [
        (KINDS["f1"], 0.8, 0.795),
        (KINDS["r2"], -0.1, -0.105),
        (LOSS, 0.2, 0.201),
        (KINDS["mae"], 40.0, 40.2),
        (KINDS["psnr"], 24.0, 23.5),
        (kind_of("reward", "larger"), 200.0, 199.0),
        (kind_of("cost"), 0.0, 0.005),
    ],
)
def test_a_drop_is_of_whatever_ranks(ranked, dense, limit) -> None:
    """0.5 points of a share, 0.5 % of a number, 0.5 of a level."""
    bound = parse("drop", "0.5")

    def holds(value: float) -> bool:
        found = {"metric": {"loss": 9.0, ranked.name: value}}
        before = {"metric": {"loss": 1.0, ranked.name: dense}}
        return measured("drop", found, ranked) <= bound.limit(measured("drop", before, ranked), ranked)

    worse = -1e-6 if ranked.larger else 1e-6
    assert holds(limit - worse)
    assert not holds(limit + worse)
    assert ranked.drop(dense, limit) == pytest.approx(0.5)


def test_what_is_shown_is_of_the_same_kind() -> None:
    metric = DENSE["metric"]
    assert (shown("loss", metric, ACCURACY), quality("loss", ACCURACY)) == (200, LOSS)  # type: ignore[arg-type]
    assert (shown("drop", metric, ACCURACY), quality("drop", ACCURACY).unit) == (98, "%")  # type: ignore[arg-type]
