"""What is compared of dense, masked and slim: figures as text, and how slim compares with dense in words."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MODELS = ("dense", "masked", "slim")

Models = Mapping[str, Mapping[str, Any]]

AS_MANY, SAME_SIZE, AS_FAST, UNCHANGED = "as many", "the same size", "as fast", "unchanged"
SAME = (AS_MANY, SAME_SIZE, AS_FAST, UNCHANGED)
"""What is said where there is no change to speak of."""


@dataclass(frozen=True)
class Measure:
    """One line of the comparison; a model without the figure has "-", and no words are made of it."""

    label: str
    cells: tuple[str, ...]
    change: str | None


def measures(models: Models) -> Iterator[Measure]:
    """Size, quality and latency, as far as they were measured of any model."""
    found = [models.get(name, {}) for name in MODELS]

    def line(label: str, values: list[Any], form: Callable[[Any], str], words: Callable[[Any, Any], str]) -> Measure:
        before, after = values[0], values[-1]
        change = None if before is None or after is None else words(before, after)
        return Measure(label, tuple("-" if value is None else form(value) for value in values), change)

    for key, label in (("params", "parameters"), ("nonzero", "of them nonzero"), ("macs", "MACs")):
        if any(key in model for model in found):
            yield line(label, [model.get(key) for model in found], "{:,}".format, fewer)
    for name in _keys(found, "metric"):
        words = points if name == "accuracy" else percent
        yield line(f"test {name}", _inner(found, "metric", name), "{:.4g}".format, words)
    for kind in _keys(found, "bytes"):
        yield line(f"{kind.replace('_', ', ')}, KB", _inner(found, "bytes", kind), kilobytes, smaller)
    for batch in _keys(found, "latency_ms"):
        figures = _inner(found, "latency_ms", batch)
        # The ratio is paired by rounds, and so is better than one of medians.
        ratio = (figures[-1] or {}).get("ratio")
        medians = [None if figure is None else figure["p50"] for figure in figures]
        change = None if ratio is None else faster(1.0, ratio)
        cells = tuple("-" if median is None else f"{median:.3f}" for median in medians)
        yield Measure(f"latency p50, batch {batch}, ms", cells, change)


def kilobytes(size: float) -> str:
    return f"{size / 1000:,.1f}"


def fewer(before: float, after: float) -> str:
    return _times(before, after, "fewer", "more", AS_MANY)


def smaller(before: float, after: float) -> str:
    return _times(before, after, "smaller", "larger", SAME_SIZE)


def faster(before: float, after: float) -> str:
    """In time; what differs by less than 3 % is as fast, since machines are no steadier."""
    if abs(after / before - 1) < 0.03:
        return AS_FAST
    return _times(before, after, "faster", "slower", AS_FAST)


def percent(before: float, after: float) -> str:
    if before == 0:
        return "was 0" if after else UNCHANGED
    change = 100 * (after / before - 1)
    return UNCHANGED if abs(change) < 0.05 else f"{change:+,.1f} %".replace("-", "\N{MINUS SIGN}")


def points(before: float, after: float) -> str:
    """Of accuracies in [0, 1], in percentage points."""
    change = 100 * (after - before)
    return UNCHANGED if abs(change) < 0.005 else f"{change:+.2f} points".replace("-", "\N{MINUS SIGN}")


def _times(before: float, after: float, less: str, more: str, same: str) -> str:
    if not before or not after:
        return same if before == after else "-"
    times, word = (before / after, less) if after <= before else (after / before, more)
    if times < 1.005:
        return same
    return f"{times:,.{1 if times >= 10 else 2}f}\N{MULTIPLICATION SIGN} {word}"


def _keys(found: list[Mapping[str, Any]], group: str) -> list[str]:
    return list(dict.fromkeys(key for model in found for key in model.get(group, {})))


def _inner(found: list[Mapping[str, Any]], group: str, key: str) -> list[Any]:
    return [model.get(group, {}).get(key) for model in found]
