"""The comparison of dense, masked and slim: figures as text, and slim against dense in words."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from compress.ranking import MetricKind, kind_of, uncertain
from compress.results import Interval, ModelName, Models, When

MODELS: tuple[ModelName, ...] = ("dense", "masked", "slim")
REMOVAL: tuple[When, ...] = ("before_removal", "after_removal")

Key = TypeVar("Key", bound=str)
Value = TypeVar("Value")

AS_MANY, SAME_SIZE, AS_FAST, UNCHANGED = "as many", "the same size", "as fast", "unchanged"
"""The words for a negligible change."""

STEADY = 1.03
"""Times that differ by less count as equal, since machines are not steadier."""

Verdict = Literal["better", "worse", "same"]


@dataclass(frozen=True)
class Change:
    """The slim network against the dense one, in words, and whether that is a gain."""

    text: str
    verdict: Verdict

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Measure:
    """One line of the comparison; a model without the figure has "-", and then there are no words."""

    label: str
    cells: tuple[str, ...]
    change: Change | None


def measures(models: Models) -> Iterator[Measure]:
    """Size, quality and latency, as far as any model has them."""
    found = [models[name] for name in MODELS]
    yield _line("parameters", [model["params"] for model in found], "{:,}".format, fewer)
    yield _line("of them nonzero", [model["nonzero"] for model in found], "{:,}".format, fewer)
    yield _line("MACs", [model["macs"] for model in found], "{:,}".format, fewer)
    errors = [model.get("error", {}) for model in found]
    for name, values in _by_key([model["metric"] for model in found]):
        yield Measure(f"test {name}", *_quality(name, values, errors, models["slim"].get("change", {}).get(name)))
    for kind, sizes in _by_key([model["bytes"] for model in found]):
        yield _line(f"{kind.replace('_', ', ')}, KB", sizes, kilobytes, smaller)
    for batch, figures in _by_key([model.get("latency_ms", {}) for model in found]):
        # The ratio is paired by rounds, and so is better than a ratio of medians.
        ratio = None if figures[-1] is None else figures[-1].get("ratio")
        change = None if ratio is None else faster(1.0, ratio)
        cells = tuple("-" if figure is None else milliseconds(figure["p50"]) for figure in figures)
        yield Measure(f"latency p50, batch {batch}, ms", cells, change)


def _line(
    label: str,
    values: Sequence[float | None],
    form: Callable[[float], str],
    words: Callable[[float, float], Change],
) -> Measure:
    before, after = values[0], values[-1]
    change = None if before is None or after is None else words(before, after)
    return Measure(label, tuple("-" if value is None else form(value) for value in values), change)


def _quality(
    name: str, values: Sequence[float | None], errors: Sequence[Mapping[str, Interval]], change: Interval | None
) -> tuple[tuple[str, ...], Change | None]:
    kind, before, after = kind_of(name), values[0], values[-1]
    cells = tuple(
        "-" if value is None else kind.text(value, error_of(value, found.get(name)))
        for value, found in zip(values, errors, strict=True)
    )
    return cells, None if before is None or after is None else changed(kind, before, after, change)


def error_of(value: float, interval: Interval | None) -> float | None:
    """The sampling error as one number: the larger distance to the ends of the interval; None without one."""
    return None if interval is None else max(interval["high"] - value, value - interval["low"])


def measured_text(metric: Mapping[str, float], errors: Mapping[str, Interval]) -> str:
    """Each test metric by its name, with its sampling error where that is known."""
    return ", ".join(
        f"test {name} {kind_of(name).text(value, error_of(value, errors.get(name)))}" for name, value in metric.items()
    )


def kilobytes(size: float) -> str:
    return f"{size / 1000:,.1f}"


def milliseconds(value: float) -> str:
    """In three digits: small networks take microseconds."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def fewer(before: float, after: float) -> Change:
    return _times(before, after, ("fewer", "more", AS_MANY))


def smaller(before: float, after: float) -> Change:
    return _times(before, after, ("smaller", "larger", SAME_SIZE))


def faster(before: float, after: float) -> Change:
    """In time, in two digits."""
    if abs(after / before - 1) < STEADY - 1:
        return Change(AS_FAST, "same")
    return _times(before, after, ("faster", "slower", AS_FAST), digits=2)


def changed(kind: MetricKind, before: float, after: float, interval: Interval | None = None) -> Change:
    """The change of a metric, in percentage points, in its unit, or in percent, with its sampling error.

    Args:
        interval: of after - before; a change that may be 0 is neither a gain nor a loss.
    """
    found, error = after - before, error_of(after - before, interval)
    if not found:
        verdict: Verdict = "same"
    elif interval is not None and interval["low"] <= 0 <= interval["high"]:
        verdict = "same"
    else:
        verdict = "better" if (found > 0) == kind.larger else "worse"
    if kind.form == "share":
        return Change(_signed(100 * found, error and 100 * error, "points", 2), verdict)
    if kind.form == "level":
        return Change(_signed(found, error, kind.unit, 2), verdict)
    if before == 0:
        return Change("was 0" if after else UNCHANGED, verdict)
    share = 100 / abs(before)
    return Change(_signed(share * found, error and share * error, "%", 1), verdict)


def _signed(change: float, error: float | None, unit: str, places: int) -> str:
    """A change with its sign, and with `places` decimals where its error is not known."""
    both = None if error is None else uncertain(change, error)
    if both is None:
        figure, spread = f"{change:,.{places if abs(change) < 100 else 0}f}", ""
    else:
        figure, spread = both[0], f" ± {both[1]}"
    nothing = not figure.strip("-0.,")
    if nothing and not spread:
        return UNCHANGED
    sign = "" if nothing else "\N{MINUS SIGN}" if change < 0 else "+"
    return f"{sign}{figure.lstrip('-')}{spread} {unit}"


def _direction(before: float, after: float, less: str, more: str) -> tuple[str, Verdict]:
    return (less, "better") if after < before else (more, "worse")


def _times(before: float, after: float, words: tuple[str, str, str], digits: int = 3) -> Change:
    """In percent where the two are nearly the same: a factor of 1.00 says nothing."""
    less, more, same = words
    if before == after:
        return Change(same, "same")
    if not before or not after:
        return Change("-", "same")
    word, verdict = _direction(before, after, less, more)
    times = max(before, after) / min(before, after)
    if times < 1.1:
        share = 100 * (times - 1 if digits < 3 else abs(after / before - 1))
        return Change(f"{share:.{1 if digits < 3 else 2}g} % {word}", verdict)
    places = max(0, digits - 1 - math.floor(math.log10(times)))
    return Change(f"{times:,.{places}f}\N{MULTIPLICATION SIGN} {word}", verdict)


def _by_key(found: Sequence[Mapping[Key, Value]]) -> Iterable[tuple[Key, list[Value | None]]]:
    """Every key of any mapping, with the value that each mapping has for it."""
    for key in dict.fromkeys(key for one in found for key in one):
        yield key, [one.get(key) for one in found]
