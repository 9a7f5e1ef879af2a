import pytest

from compress.run.curve import POINTS, Curve
from compress.run.setting import Moment


def told(steps: int, factor: float | None = 0.5, share: float | None = 1.0) -> Curve:
    curve = Curve(steps)
    for step in range(1, steps + 1):
        curve.add(Moment(step, float(step), factor=factor, share=share))
    return curve


@pytest.mark.parametrize("steps", [1, POINTS, POINTS + 1, 10 * POINTS - 3])
def test_the_number_of_points_is_bounded_and_each_is_a_mean(steps: int) -> None:
    found = told(steps).document()
    span = found["span"]
    spans = [range(first, min(first + span, steps + 1)) for first in range(1, steps + 1, span)]
    assert len(found["loss"]) == len(spans) <= POINTS
    assert found["loss"] == pytest.approx([sum(part) / len(part) for part in spans], rel=1e-4)
    assert found["share"] == [1.0] * len(spans)


def test_every_sample_counts_alike() -> None:
    """A span of two batches, the second of which is the small rest of an epoch; and the same after a resume."""
    curve = Curve(2 * POINTS)
    curve.add(Moment(1, 1.0, rows=128))
    resumed = Curve(2 * POINTS)
    resumed.load_state_dict(curve.state_dict())
    for one in (curve, resumed):
        one.add(Moment(2, 5.0, rows=16))
        assert one.document()["loss"] == [round((128 * 1.0 + 16 * 5.0) / 144, 4)]


def test_the_mask_is_that_at_the_end_of_the_span() -> None:
    curve = Curve(800)
    for step in range(1, 801):
        curve.add(Moment(step, 1.0, factor=1 - step / 800, share=0.0))
    assert curve.document()["factor"][-1] == 0.0
    assert curve.document()["factor"][0] == 0.9975


def test_what_is_not_known_is_absent() -> None:
    assert told(3, factor=None).document().keys() == {"span", "loss", "share"}
    assert told(3, None, None).document() == {"span": 1, "loss": [1.0, 2.0, 3.0]}
