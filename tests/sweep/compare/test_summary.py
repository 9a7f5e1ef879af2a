"""Means, spreads, and the paired test against the tables of Student's t and against counting."""

import itertools
import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.sweep.compare.summary import best, levels, paired_p, scratch_wins, spread, student_p


@pytest.mark.parametrize(
    ("freedom", "five_percent", "one_percent"),  # two-sided critical values, as any table of Student's t has them
    [
        (1, 12.7062, 63.6567),
        (2, 4.30265, 9.92484),
        (3, 3.18245, 5.84091),
        (4, 2.77645, 4.60409),
        (5, 2.57058, 4.03214),
        (9, 2.26216, 3.24984),
        (10, 2.22814, 3.16927),
        (30, 2.04227, 2.75000),
    ],
)
def test_the_critical_values_of_student(freedom: int, five_percent: float, one_percent: float) -> None:
    assert student_p(five_percent, freedom) == pytest.approx(0.05, abs=1e-6)
    assert student_p(-one_percent, freedom) == pytest.approx(0.01, abs=1e-6)
    assert student_p(0.0, freedom) == 1


@given(t=st.floats(0, 8), freedom=st.integers(1, 12))
def test_student_is_the_integral_of_its_density(t: float, freedom: int) -> None:
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    steps = 2000
    inside = sum((1 + (t * (k + 0.5) / steps) ** 2 / freedom) ** (-(freedom + 1) / 2) for k in range(steps)) * t / steps
    assert student_p(t, freedom) == pytest.approx(1 - 2 * constant * inside, abs=1e-5)


def test_sleep_after_two_drugs() -> None:
    """Student's own data (1908): t = -4.0621 with 9 degrees of freedom, p = 0.002833."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    assert paired_p(first, second) == pytest.approx(0.002833, abs=1e-6)


def test_few_pairs_and_pairs_without_noise() -> None:
    assert paired_p([1, 2], [3, 4]) is None
    assert paired_p([1, 2, 3], [1, 2, 3]) == 1
    assert paired_p([1, 2, 3], [2, 3, 4]) == 0
    assert spread([5.0]) is None
    assert spread([1.0, 2.0, 4.0]) == pytest.approx(statistics.stdev([1, 2, 4]))


def test_what_is_shared_cancels() -> None:
    """The same small gain in every pair is beyond the noise, however much the pairs differ from each other."""
    low = [90.0, 80.0, 95.0, 85.0]
    high = [90.5, 80.6, 95.4, 85.5]
    assert best({"low": low, "high": high}, larger=True)[0] == "high"
    assert best({"low": low, "high": high}, larger=False)[0] == "low"
    mixed = [91.5, 79.6, 95.4, 85.9]
    name, p = best({"low": low, "mixed": mixed}, larger=True)
    assert name is None
    assert p is not None
    assert p > 0.05


def test_the_best_is_compared_with_the_second_best() -> None:
    rivals = {"a": [3.0, 3.1, 3.2], "b": [3.0, 3.2, 3.1], "c": [1.0, 1.1, 1.2]}
    for order in itertools.permutations(rivals):
        assert best({name: rivals[name] for name in order}, larger=True) == (None, 1.0)
    assert best({"a": [1.0, 2.0, 3.0]}, larger=True) == (None, None)
    assert best({}, larger=True) == (None, None)


def test_who_diverged_once_has_no_mean_and_wins_nothing() -> None:
    values = {"a": [5.0, 5.1, 5.2], "b": [4.0, 4.1, 4.3], "c": [1.0, None, 1.0]}
    results = {
        "metric": {"name": "loss"},
        "sparsities": [0.5],
        "rivals": [{"name": name} for name in values],
        "cells": [
            {"rival": name, "sparsity": 0.5, "lr": 0.1, "value": value}
            for name, found in values.items()
            for value in found
        ],
    }
    (level,) = levels(results)
    assert level["best"] == "b"
    assert level["rivals"]["c"] == {"lr": 0.1, "diverged": 1, "mean": None, "sd": None}
    assert level["rivals"]["a"]["mean"] == pytest.approx(5.1)


@pytest.mark.parametrize(
    ("scratch", "wins"),
    [([60.0, 61.0, 62.0], True), ([50.0, 52.0, 53.0], False), ([52.0, 50.0, 54.0], False), ([60.0, None, 62.0], False)],
)
def test_the_shape_from_scratch_beats_the_best_way_to_prune_or_not(scratch: list[float | None], wins: bool) -> None:
    values = {"hard": [40.0, 41.0, 42.0], "soft": [51.0, 51.5, 53.0], "from scratch": scratch}
    results: Any = {
        "metric": {"name": "accuracy"},
        "rivals": [{"name": "hard"}, {"name": "soft"}, {"name": "from scratch", "scratch": "total"}],
        "cells": [
            {"rival": name, "sparsity": 0.5, "value": value} for name, found in values.items() for value in found
        ],
    }
    level: Any = {"sparsity": 0.5}
    assert scratch_wins(results, level, "total") == wins
    assert not scratch_wins(results, level, "retraining")
    results["metric"]["name"] = "loss"
    assert not scratch_wins(results, level, "total")
