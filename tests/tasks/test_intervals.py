"""Sampling errors against scipy, closed forms and known distributions."""

import math

import numpy as np
import pytest
from scipy import stats

from compress.tasks.intervals import Bootstrap, Z, between, paired_shares, ratios, wilson


@pytest.mark.parametrize(("right", "of"), [(0, 17), (17, 17), (1, 2), (17, 50), (9_820, 10_000), (1, 1_000_000)])
def test_a_share_has_the_interval_of_wilson(right: int, of: int) -> None:
    low, high = stats.binomtest(right, of).proportion_ci(0.95, method="wilson")
    found = wilson(right, of)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    assert found.method == "wilson"


def test_it_holds_the_true_share_in_nearly_19_of_20_cases() -> None:
    chance, true = np.random.default_rng(0), 0.9
    found = [wilson(right, 60) for right in chance.binomial(60, true, 4000)]
    assert 0.93 < np.mean([low <= true <= high for low, high, _ in found]) < 0.97


def test_paired_shares_hold_the_true_difference() -> None:
    """Of 200 samples, 4 % become wrong and 1 % become right: a difference of -3 points."""
    chance = np.random.default_rng(0)
    found = [paired_shares(*chance.multinomial(200, [0.01, 0.04, 0.95])[:2], of=200) for _ in range(4000)]
    assert 0.94 < np.mean([low <= -0.03 <= high for low, high, _ in found]) < 0.985


def test_paired_shares_are_far_more_certain_than_two_shares() -> None:
    paired, single = paired_shares(30, 50, 10_000), wilson(9_000, 10_000)
    assert paired.low < -0.002 < paired.high < 0
    assert paired.high - paired.low < 0.5 * (single.high - single.low)
    # The plain interval of a mean of -1, 0 and 1, which many samples come close to.
    half = Z * math.sqrt(80 / 10_000 - 0.002**2) / 100
    assert (paired.low, paired.high) == (pytest.approx(-0.002 - half, rel=0.02), pytest.approx(-0.002 + half, rel=0.05))


def test_where_no_sample_has_changed_the_difference_is_still_uncertain() -> None:
    low, high, _ = paired_shares(0, 0, 100)
    assert low == -high < 0


@pytest.mark.parametrize("size", [400, 25_000])  # drawn one by one, and in sums of several
def test_resampled_means_spread_as_the_standard_error_says(size: int) -> None:
    values = np.random.default_rng(1).exponential(size=size)
    sums = Bootstrap(size).sums(np.stack([values, np.ones(size)], 1))
    found = between(ratios(sums, np.asarray), "bootstrap")
    assert found is not None
    error = values.std() / math.sqrt(size)
    assert (found.high - found.low) / 2 == pytest.approx(Z * error, rel=0.1)
    assert found.low < values.mean() < found.high


def test_weighted_means_are_ratios_of_sums() -> None:
    """Samples with many tokens: the error of a ratio, by the delta method."""
    chance = np.random.default_rng(2)
    counts = chance.integers(1, 50, size=500).astype(float)
    sums = counts * chance.normal(2.0, 0.5, size=500)
    replicates = ratios(Bootstrap(500).sums(np.stack([sums, counts], 1)), np.asarray)
    mean = sums.sum() / counts.sum()
    error = np.std(sums - mean * counts) / counts.mean() / math.sqrt(500)
    assert replicates.std() == pytest.approx(error, rel=0.1)
    assert replicates.mean() == pytest.approx(mean, abs=error)


def test_the_same_seed_draws_the_same_samples() -> None:
    values = np.arange(50.0)[:, None]
    rows = np.stack([values[drawn].sum(0) for drawn in Bootstrap(50, 20).rows()])
    assert np.array_equal(Bootstrap(50, 20).sums(values), rows)
    assert not np.array_equal(Bootstrap(50, 20, seed=1).sums(values), rows)


def test_resamples_that_tell_nothing_are_left_out() -> None:
    assert between(np.array([np.nan, 1.0, 2.0, 3.0]), "bootstrap") is not None
    assert between(np.array([np.nan, np.nan, 2.0]), "bootstrap") is None
