"""How far a figure on test samples may be from the figure on all samples like them: 95 % intervals."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compress.ranking import IntervalMethod

Z = 1.959963984540054
"""Of the normal distribution: 95 % of it are within so many standard deviations."""

MOST = 10_000
"""Units that are drawn one by one; of more samples, each unit is the sum of several, picked at random."""

Values = NDArray[np.float64]


class Interval(NamedTuple):
    low: float
    high: float
    method: IntervalMethod


def wilson(right: float, of: float) -> Interval:
    """Wilson's score interval of a share: `right` of `of` samples. It lies within [0, 1], also for 0 and for all."""
    share, z2 = right / of, Z**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return Interval(max(0.0, middle - half), min(1.0, middle + half), "wilson")


def paired_shares(gained: float, lost: float, of: float) -> Interval:
    """The difference of two shares of the same samples: `gained` became right and `lost` became wrong.

    The adjusted Wald interval of Agresti and Min (2005): half a sample is added to each of the four kinds, so that it
    is no point where no sample has changed.
    """
    gained, lost, of = gained + 0.5, lost + 0.5, of + 2
    middle = (gained - lost) / of
    half = Z * math.sqrt(gained + lost - (gained - lost) ** 2 / of) / of
    return Interval(max(-1.0, middle - half), min(1.0, middle + half), "agresti_min")


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of `size` samples, drawn with replacement. Those of the same size and seed are the same ones."""

    size: int
    resamples: int = 1000
    seed: int = 0

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """Each resample as the numbers of its samples."""
        chance = np.random.default_rng(self.seed)
        for _ in range(self.resamples):
            yield chance.integers(self.size, size=self.size)

    def sums(self, values: Values) -> Values:
        """[resamples, K]: the sums over the samples of each resample of `values` [size, K]."""
        chance = np.random.default_rng(self.seed)
        units = _united(values, chance)
        size = len(units)
        drawn = (np.bincount(chance.integers(size, size=size), minlength=size) for _ in range(self.resamples))
        return np.stack([counts @ units for counts in drawn])


def _united(values: Values, chance: np.random.Generator) -> Values:
    if len(values) <= MOST:
        return values
    return np.stack([part.sum(0) for part in np.array_split(values[chance.permutation(len(values))], MOST)])


def between(replicates: Values, method: IntervalMethod, *, least: float = 0.5) -> Interval | None:
    """The percentile interval of what resamples have given; None where too few of them are numbers.

    Args:
        least: the share of them that has to be.
    """
    told = replicates[np.isfinite(replicates)]
    if len(told) < max(1.0, least * len(replicates)):
        return None
    low, high = np.percentile(told, [2.5, 97.5]).tolist()
    return Interval(low, high, method)


def ratios(sums: Values, transform: Callable[[Values], Values]) -> Values:
    """Of sums [resamples, 2], of values and of their weights: what `transform` makes of the weighted means."""
    with np.errstate(all="ignore"):
        return transform(sums[:, 0] / sums[:, 1])
