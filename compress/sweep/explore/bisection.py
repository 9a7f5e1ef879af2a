"""Find where along an ordered list a condition begins to hold."""

from collections.abc import Callable, Sequence


def first_true(holds: Callable[[Sequence[int]], Sequence[bool]], count: int, at_once: int = 1) -> int:
    """The first index in [0, count) at which `holds` is true, if it is true for all later ones; else `count`.

    Args:
        holds: the condition for several indices, at most `at_once`, which cost as much as one.
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
