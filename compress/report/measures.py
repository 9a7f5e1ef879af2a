"""The comparison of dense, masked and slim: figures as text, and slim against dense in words."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from compress.ranking import MetricKind, kind_of
from compress.results import ModelName, Models, When

MODELS: tuple[ModelName, ...] = ("dense", "masked", "slim")
REMOVAL: tuple[When, ...] = ("before_removal", "after_removal")

Key = TypeVar("Key", bound=str)
Value = TypeVar("Value")

AS_MANY, SAME_SIZE, AS_FAST, UNCHANGED = "as many", "the same size", "as fast", "unchanged"
SAME = (AS_MANY, SAME_SIZE, AS_FAST, UNCHANGED)
"""The words for a negligible change."""


@dataclass(frozen=True)
class Measure:
    """One line of the comparison; a model without the figure has "-", and then there are no words."""

    label: str
    cells: tuple[str, ...]
    change: str | None


def measures(models: Models) -> Iterator[Measure]:
    """Size, quality and latency, as far as any model has them."""
    found = [models[name] for name in MODELS]
    yield _line("parameters", [model["params"] for model in found], "{:,}".format, fewer)
    yield _line("of them nonzero", [model["nonzero"] for model in found], "{:,}".format, fewer)
    yield _line("MACs", [model["macs"] for model in found], "{:,}".format, fewer)
    for name, values in _by_key([model["metric"] for model in found]):
        yield _line(f"test {name}", values, "{:.4g}".format, partial(changed, kind_of(name)))
    for kind, sizes in _by_key([model["bytes"] for model in found]):
        yield _line(f"{kind.replace('_', ', ')}, KB", sizes, kilobytes, smaller)
    for batch, figures in _by_key([model.get("latency_ms", {}) for model in found]):
        # The ratio is paired by rounds, and so is better than a ratio of medians.
        ratio = None if figures[-1] is None else figures[-1].get("ratio")
        change = None if ratio is None else faster(1.0, ratio)
        cells = tuple("-" if figure is None else f"{figure['p50']:.3f}" for figure in figures)
        yield Measure(f"latency p50, batch {batch}, ms", cells, change)


def _line(
    label: str,
    values: Sequence[float | None],
    form: Callable[[float], str],
    words: Callable[[float, float], str],
) -> Measure:
    before, after = values[0], values[-1]
    change = None if before is None or after is None else words(before, after)
    return Measure(label, tuple("-" if value is None else form(value) for value in values), change)


def kilobytes(size: float) -> str:
    return f"{size / 1000:,.1f}"


def fewer(before: float, after: float) -> str:
    return _times(before, after, "fewer", "more", AS_MANY)


def smaller(before: float, after: float) -> str:
    return _times(before, after, "smaller", "larger", SAME_SIZE)


def faster(before: float, after: float) -> str:
    """In time; a difference below 3 % counts as equal, since machines are not steadier."""
    if abs(after / before - 1) < 0.03:
        return AS_FAST
    return _times(before, after, "faster", "slower", AS_FAST)


def percent(before: float, after: float) -> str:
    if before == 0:
        return "was 0" if after else UNCHANGED
    change = 100 * (after / before - 1)
    return UNCHANGED if abs(change) < 0.05 else f"{change:+,.1f} %".replace("-", "\N{MINUS SIGN}")


def points(before: float, after: float) -> str:
    """The change of an accuracy in [0, 1], in percentage points."""
    change = 100 * (after - before)
    return UNCHANGED if abs(change) < 0.005 else f"{change:+.2f} points".replace("-", "\N{MINUS SIGN}")


def changed(kind: MetricKind, before: float, after: float) -> str:
    """The change of a metric, in percentage points, in its unit, or in percent."""
    if kind.form == "share":
        return points(before, after)
    if kind.form == "level":
        found = after - before
        return UNCHANGED if abs(found) < 0.005 else f"{found:+.2f} {kind.unit}".replace("-", "\N{MINUS SIGN}")
    return percent(before, after)


def _times(before: float, after: float, less: str, more: str, same: str) -> str:
    if not before or not after:
        return same if before == after else "-"
    times, word = (before / after, less) if after <= before else (after / before, more)
    if times < 1.005:
        return same
    return f"{times:,.{1 if times >= 10 else 2}f}\N{MULTIPLICATION SIGN} {word}"


def _by_key(found: Sequence[Mapping[Key, Value]]) -> Iterable[tuple[Key, list[Value | None]]]:
    """Every key of any mapping, with the value that each mapping has for it."""
    for key in dict.fromkeys(key for one in found for key in one):
        yield key, [one.get(key) for one in found]
