"""Where along an ordered list something begins to hold."""

from collections.abc import Callable, Sequence


def first_true(holds: Callable[[Sequence[int]], Sequence[bool]], count: int, at_once: int = 1) -> int:
    """The first index in [0, count) at which it holds, given that it then holds for all after it; else `count`.

    Args:
        holds: for several indices, `at_once` at most, which cost as much as one.
    """
    low, high = -1, count
    while high - low > 1:
        parts = min(at_once, high - low - 1) + 1
        indices = sorted({low + (high - low) * part // parts for part in range(1, parts)} - {low})
        for index, true in zip(indices, holds(indices), strict=True):
            if true:
                high = min(high, index)
            elif index < high:
                low = index
    return high
