"""The training curve of a stage: a bounded number of points, however many steps there are."""

from collections.abc import Iterable
from typing import Any

from compress.results import CurvePoints
from compress.run.setting import Moment

POINTS = 400


class Curve:
    """Receives every step, in order, and keeps one point for each span of steps.

    A point is the mean loss of its span, with the mask factor and the share of the set at the span's end.
    """

    def __init__(self, steps: int) -> None:
        """For a training of `steps` steps, at least 1."""
        self.span = -(-steps // POINTS)
        self._steps, self._sum, self._count = steps, 0.0, 0
        self._points: list[tuple[float, float | None, float | None]] = []

    def add(self, moment: Moment) -> None:
        self._sum += moment.loss
        self._count += 1
        if self._count == self.span or moment.step == self._steps:
            self._points.append((self._sum / self._count, moment.factor, moment.share))
            self._sum, self._count = 0.0, 0

    def document(self) -> CurvePoints:
        """The curve's entry of results.json; values that some points lack are absent."""
        losses, factors, shares = zip(*self._points, strict=True)
        found: CurvePoints = {"span": self.span, "loss": _rounded(losses)}
        if None not in factors:
            found["factor"] = _rounded(factors)
        if None not in shares:
            found["share"] = _rounded(shares)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"points": self._points, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._points, self._sum, self._count = list(state["points"]), state["sum"], state["count"]


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
