"""Size against quality: the networks that no other one beats, and the bend of a curve."""

from collections.abc import Sequence

import numpy as np


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other point beats (at most as large in both, smaller in one), by rising first coordinate.

    Of equal points, the first one counts.
    """
    order = sorted(range(len(points)), key=lambda index: points[index])
    found: list[int] = []
    for index in order:
        if not found or points[index][1] < points[found[-1]][1]:
            found.append(index)
    return found


def knee(sizes: Sequence[float], losses: Sequence[float]) -> int | None:
    """The index of the strongest bend of a falling curve of the loss over the size, or None if it does not bend.

    It is the point farthest below the chord, on logarithmic axes scaled to [0, 1]: Kneedle (Satopaa et al., "Finding a
    'kneedle' in a haystack", 2011) without its smoothing, and with logarithms, since both sizes and losses range over
    orders of magnitude.

    Args:
        sizes: above 0, rising. losses: above 0, one per size.
    """
    if len(sizes) < 3 or losses[0] <= losses[-1]:
        return None
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(losses, float))
    below = 1 - (x - x[0]) / (x[-1] - x[0]) - (y - y[-1]) / (y[0] - y[-1])
    index = int(below.argmax())
    return index if below[index] > 1e-9 else None
