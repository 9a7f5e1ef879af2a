"""Bisection finds what looking everywhere finds."""

from collections.abc import Sequence

import pytest

from compress.sweep.explore.bisection import first_true


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 16, 56])
def test_the_first_that_holds(count: int, at_once: int) -> None:
    for first in range(count + 1):
        asked: list[int] = []
        rounds = 0

        def holds(indices: Sequence[int], first: int = first, asked: list[int] = asked) -> list[bool]:
            nonlocal rounds
            rounds += 1
            assert 1 <= len(indices) <= at_once
            asked += indices
            return [index >= first for index in indices]

        everywhere = next((index for index in range(count) if index >= first), count)
        assert first_true(holds, count, at_once) == everywhere
        assert len(asked) == len(set(asked)), "none is asked for twice"
        assert (at_once + 1) ** (rounds - 1) <= count + 1 if rounds else count == 0


def test_where_it_does_not_hold_for_all_that_follow_the_answer_is_still_a_beginning() -> None:
    values = [False, True, False, False, True, True, False, True]
    found = first_true(lambda indices: [values[index] for index in indices], len(values), 2)
    assert values[found]
    assert not values[found - 1]
