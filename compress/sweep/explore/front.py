"""Size against quality: which of many networks no other one beats, and where the curve bends."""

from collections.abc import Sequence

import numpy as np


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points than which no other is at least as small in both and smaller in one; by growing first coordinate.

    Of equal points the first.
    """
    order = sorted(range(len(points)), key=lambda index: points[index])
    found: list[int] = []
    for index in order:
        if not found or points[index][1] < points[found[-1]][1]:
            found.append(index)
    return found


def knee(sizes: Sequence[float], losses: Sequence[float]) -> int | None:
    """Where a falling curve of the loss over the size bends most; the index, or None where it nowhere does.

    The point that lies the farthest below the chord, on logarithmic axes that are scaled to [0, 1]: Kneedle (Satopaa et
    al., "Finding a 'kneedle' in a haystack", 2011) without its smoothing, and with logarithms, since both sizes and
    losses range over orders of magnitude.

    Args:
        sizes: above 0, rising. losses: above 0, as many.
    """
    if len(sizes) < 3 or losses[0] <= losses[-1]:
        return None
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(losses, float))
    below = 1 - (x - x[0]) / (x[-1] - x[0]) - (y - y[-1]) / (y[0] - y[-1])
    index = int(below.argmax())
    return index if below[index] > 1e-9 else None
