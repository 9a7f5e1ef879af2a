"""The training curve of a stage: a bounded number of points, however many steps there are."""

from collections.abc import Iterable
from typing import Any

from compress.results import CurvePoints
from compress.run.setting import Moment
from compress.train.loop import weighted_mean

POINTS = 400


class Curve:
    """Receives every step, in order, and keeps one point for each span of steps.

    A point is the mean loss over the samples of its span, with the mask factor and the share of the set at its end.
    """

    def __init__(self, steps: int) -> None:
        """For a training of `steps` steps, at least 1."""
        self.span = -(-steps // POINTS)
        self._steps = steps
        self._losses: list[tuple[float, int]] = []  # of the span's batches, each with its number of samples
        self._points: list[tuple[float, float | None, float | None]] = []

    def add(self, moment: Moment) -> None:
        self._losses.append((moment.loss, moment.rows))
        if len(self._losses) == self.span or moment.step == self._steps:
            self._points.append((weighted_mean(self._losses), moment.factor, moment.share))
            self._losses = []

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
        return {"points": self._points, "losses": self._losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._points = list(state["points"])
        self._losses = [(loss, rows) for loss, rows in state["losses"]]


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
