"""Bounds as people write them, and which of them make sense together."""

import pytest

from compress.errors import InputError
from compress.sweep.explore.bounds import goal_of, measured, parse, require_reach, shown, tolerated, unit
from compress.sweep_results import BoundKind

DENSE = {"metric": {"loss": 0.2, "accuracy": 0.98}, "params": 1000, "nonzero": 990, "macs": 500}


@pytest.mark.parametrize(
    ("kind", "text", "limit"),
    [
        ("loss", "1.5x", 0.3),
        ("loss", " 1x ", 0.2),
        ("loss", "0.25", 0.25),
        ("loss", "2.5e-1", 0.25),
        ("accuracy_drop", "0.5", 2.5),  # wrong answers in percent
        ("accuracy_drop", "0", 2.0),
        ("params", "0.5x", 500),
        ("params", "300", 300),
        ("macs", ".1x", 50),
    ],
)
def test_a_bound_is_a_multiple_of_the_dense_network_or_a_number(kind: BoundKind, text: str, limit: float) -> None:
    bound = parse(kind, text)
    assert bound.limit(measured(kind, DENSE)) == pytest.approx(limit)
    option = {"loss": "--max-loss", "accuracy_drop": "--max-accuracy-drop"}.get(kind, f"--max-{kind}")
    assert bound.text == f"{option} {text.strip()}"


def test_what_is_measured_is_smaller_where_a_network_is_better() -> None:
    found = {"metric": {"loss": 0.3, "accuracy": 0.975}, "params": 500, "macs": 51, "latency": {"ratio": 0.5}}
    kinds: tuple[BoundKind, ...] = ("loss", "accuracy_drop", "params", "macs", "latency")
    assert [measured(kind, found) for kind in kinds] == pytest.approx([0.3, 2.5, 500, 51, 0.5])
    assert parse("latency", "0.5x").limit(1.0) == 0.5


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("loss", "much", "--max-loss much: give a number, or a multiple"),
        ("loss", "-1", "give a number"),
        ("loss", "1e999", "give a number"),
        ("loss", "0.9x", "the dense network itself has 1x"),
        ("accuracy_drop", "1.1x", "percentage points below the dense network's"),
        ("accuracy_drop", "100", "percentage points"),
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
        parse("accuracy_drop", "1"),
        parse("params", "9"),
        parse("macs", "9"),
    )
    assert goal_of([loss], "reconstruct") == "smallest"
    assert goal_of([loss, drop], "classify") == "smallest"
    assert goal_of([params, macs], "reconstruct") == "best"
    assert goal_of([], "reconstruct", knee=True) == "knee"
    with pytest.raises(InputError, match=r"--max-loss 1.1x asks for the smallest network and --max-params 9"):
        goal_of([loss, params], "reconstruct")
    with pytest.raises(InputError, match="nothing bounds the search"):
        goal_of([], "reconstruct")
    with pytest.raises(InputError, match="--knee and --max-params 9"):
        goal_of([params], "reconstruct", knee=True)
    with pytest.raises(InputError, match="the task reconstruct has no accuracy"):
        goal_of([drop], "reconstruct")


def test_bounds_that_decide_nothing_are_refused() -> None:
    require_reach([parse("loss", "1x"), parse("accuracy_drop", "0"), parse("params", "999")], DENSE)
    with pytest.raises(InputError, match=r"even the dense network misses it, with 0.2 on the held-out"):
        require_reach([parse("loss", "0.19")], DENSE)
    with pytest.raises(InputError, match="the dense network is already within it, with 1,000"):
        require_reach([parse("params", "1000")], DENSE)


def test_what_is_tolerated_is_a_loss_or_points_of_accuracy() -> None:
    assert tolerated("1.05x").limit(0.2) == pytest.approx(0.21)
    assert tolerated("0.5").limit(2.0) == pytest.approx(2.5)
    assert tolerated("0.5").text == "--tolerate 0.5"
    for text, message in (("0.5x", "the dense network itself"), ("some", "--tolerate some: give a number")):
        with pytest.raises(InputError, match=message):
            tolerated(text)


def test_what_is_shown_is_of_the_same_kind() -> None:
    assert (shown("loss", DENSE["metric"]), unit("loss")["name"]) == (200, "loss")  # type: ignore[arg-type]
    assert (shown("accuracy_drop", DENSE["metric"]), unit("accuracy_drop")["unit"]) == (98, "%")  # type: ignore[arg-type]
