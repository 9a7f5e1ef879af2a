"""The least that is kept of every layer, whatever its scores are."""

import math

from compress.errors import InputError

FLOOR = 0.25
"""The largest share of each width that is kept where several compete for an amount and no floor is given."""


def usual_floor(alike: float) -> float:
    """The share of each width that is kept where several compete and no floor is given.

    A quarter, or half of what would be left if all widths were cut alike, if that is less. Scores of different layers
    are comparable at best, and a layer with a handful of nodes lets nothing through (docs/benchmarks.md).

    Args:
        alike: the share of each width that would be left.
    """
    return min(FLOOR, alike / 2)


def require_min_keep(min_keep: object) -> None:
    """Raise InputError unless it is None, a number of entries, 0 for no floor, or a share."""
    is_count = isinstance(min_keep, int) and not isinstance(min_keep, bool) and min_keep >= 0
    if min_keep is not None and not is_count and not (isinstance(min_keep, float) and 0 < min_keep < 1):
        raise InputError(
            f"min_keep: found {min_keep!r}; expected a number of entries (1, 2, ...), a share in (0, 1), or 0 for no "
            "floor"
        )


def floor_of(size: int, min_keep: int | float | None) -> int:
    """How many of `size` entries are kept at least: at most all of them, and 0 without a floor.

    Raises:
        InputError: as `require_min_keep`.
    """
    require_min_keep(min_keep)
    if not min_keep:
        return 0
    # A share of 0.1 is a bit more than a tenth as a float: 30 entries have a floor of 3, not of 4.
    return min(int(min_keep), size) if min_keep >= 1 else max(1, math.ceil(min_keep * size - 1e-9))
