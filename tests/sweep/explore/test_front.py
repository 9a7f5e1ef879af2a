"""The front against its definition, and the knee of curves whose bend is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.sweep.explore.front import knee, pareto

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30)


@given(POINTS)
def test_nothing_on_the_front_is_beaten_and_all_else_is(points: list[tuple[int, int]]) -> None:
    front = pareto(points)

    def beaten(point: tuple[int, int]) -> bool:
        return any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)

    assert {points[index] for index in front} == {point for point in points if not beaten(point)}
    assert len({points[index] for index in front}) == len(front), "equal points once"
    assert [points[index] for index in front] == sorted(points[index] for index in front)


def test_of_equal_points_the_first() -> None:
    assert pareto([(2, 1), (1, 2), (2, 1), (3, 3)]) == [1, 0]
    assert pareto([]) == []


@pytest.mark.parametrize("at", [3, 8, 20])
def test_the_knee_of_a_bent_line_is_its_bend(at: int) -> None:
    """Two power laws: loss ~ 1 / size up to the bend, and nearly level behind it."""
    sizes = list(range(1, 65))
    losses = [10 / size if size <= at else 10 / at * (at / size) ** 0.05 for size in sizes]
    index = knee(sizes, losses)
    assert index is not None
    assert sizes[index] == at
    assert knee([7 * size for size in sizes], [losses[size - 1] / 3 for size in sizes]) == index, "units do not matter"


def test_the_knee_is_the_farthest_from_the_chord() -> None:
    """Distances to the straight line through the ends, measured along its normal, of 2-D points after scaling."""
    sizes, losses = [1, 2, 4, 8, 16, 32], [30.0, 12.0, 7.0, 6.1, 5.5, 5.0]
    x, y = np.log(sizes), np.log(losses)
    x, y = (x - x.min()) / np.ptp(x), (y - y.min()) / np.ptp(y)
    start, end = np.array([x[0], y[0]]), np.array([x[-1], y[-1]])
    along = (end - start) / np.linalg.norm(end - start)
    away = [float(along[0] * (b - start[1]) - along[1] * (a - start[0])) for a, b in zip(x, y, strict=True)]
    assert knee(sizes, losses) == int(np.argmin(away)) == 2


def test_some_curves_have_no_knee() -> None:
    assert knee([1, 2], [2, 1]) is None
    assert knee([1, 2, 4], [1, 2, 3]) is None, "it rises"
    assert knee([1, 2, 4, 8], [8, 4, 2, 1]) is None, "straight on logarithmic axes"
    assert knee([1, 2, 4], [4, math.nextafter(4, 0), 1]) is None, "it bends the other way"
