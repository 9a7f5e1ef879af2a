"""The figures of a network on the test samples, with their sampling errors, as results.json has them."""

from collections.abc import Mapping

from compress.results import Interval, Metric, Quality
from compress.tasks import intervals
from compress.tasks.sampling import Samples


def quality(metric: Metric, samples: Samples, dense: Samples | None = None) -> Quality:
    """The entry of a network.

    Args:
        samples: that have watched its evaluation. dense: those of the dense network, to compare with.
    """
    found: Quality = {"metric": metric}
    if errors := _entries(samples.intervals()):
        found["error"] = errors
    if dense is not None and (changes := _entries(samples.changes_from(dense))):
        found["change"] = changes
    return found


def _entries(found: Mapping[str, intervals.Interval]) -> dict[str, Interval]:
    return {
        name: {"low": _rounded(one.low), "high": _rounded(one.high), "method": one.method}
        for name, one in found.items()
    }


def _rounded(value: float) -> float:
    """In six digits: no error is known better."""
    return float(f"{value:.6g}")
