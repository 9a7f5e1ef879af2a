"""Limit how much of a results.json a page shows, so that it is made in seconds and readable, whatever the file has."""

from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Any, cast

from compress.results import Results
from compress.wording import count_of

MOST: Mapping[str, int] = {
    "stages": 20,
    "tensors": 500,
    "images": 50,
    "warnings": 50,
    "scores": 50,
    "latency_ms": 20,
    "series": 8,
}
"""The most entries shown of these lists; of any other, `ENTRIES`."""

ENTRIES, TEXT, POINTS = 100, 2_000, 1_000
"""Entries of a list or mapping, characters of a text, and points of a curve."""

VALUES = 10_000
"""Values of a part of the file, such as its recipe, without the points of curves."""

_LISTS = {"quantiles", "gone", "kept", "target", "dense", "slim", "of", "names", "false_alarms", "found"}
"""Lists of numbers for figures, which need every number; up to `POINTS` are drawn."""


def bounded(results: Results) -> tuple[Results, list[str]]:
    """The part of the results to show, and a sentence about what is left out.

    Curves are thinned out evenly; of everything else the first entries are kept. Confusion matrices are left
    unchanged: their figure chooses the classes that it shows.
    """
    notes: dict[str, None] = {}
    shown = {key: value if key == "confusion" else _Cut(notes).value(key, value) for key, value in results.items()}
    return cast(Results, shown), [f"Not all of the file is shown: {', '.join(notes)}."] if notes else []


def _thin(key: str, values: list[Any], step: int) -> list[Any]:
    parts = [values[start : start + step] for start in range(0, len(values), step)]
    return [fmean(part) if key == "loss" else part[-1] for part in parts]


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 1


class _Cut:
    def __init__(self, notes: dict[str, None]) -> None:
        self._notes, self._left = notes, VALUES

    def value(self, key: str, value: Any) -> Any:
        self._left -= 1
        if isinstance(value, str) and len(value) > TEXT:
            self._note(f"{TEXT:,} of {count_of(len(value), 'character')} of {key!r}")
            return value[:TEXT] + "..."
        if key == "curve" and isinstance(value, dict):
            return self._curve(value)
        if key == "images" and isinstance(value, list):  # pictures are long texts
            return value[: self._room(key, value)]
        if isinstance(value, dict):
            pairs = islice(value.items(), self._room(key, value))
            return {inner[:TEXT]: self.value(inner, entry) for inner, entry in pairs}
        if isinstance(value, list):
            return [self.value(key, entry) for entry in value[: self._room(key, value)]]
        return value

    def _room(self, key: str, value: Sequence[object] | Mapping[str, object]) -> int:
        """The number of entries of a list or mapping to show."""
        most = POINTS if key in _LISTS else MOST.get(key, ENTRIES)
        most = max(0, min(most if isinstance(value, list) or key in MOST else ENTRIES, self._left))
        if len(value) > most:
            self._note(f"{most:,} of {count_of(len(value), 'entry', 'entries')} of {key!r}")
        return most

    def _curve(self, curve: Mapping[str, object]) -> dict[str, object]:
        """The curve with fewer points: the mean loss of each span, and the mask at its end."""
        longest = max((len(value) for value in curve.values() if isinstance(value, list)), default=0)
        step = -(-longest // POINTS) or 1
        if step == 1:
            return dict(curve)
        self._note(f"{POINTS:,} of {count_of(longest, 'point')} of a curve")
        thin = {key: _thin(key, value, step) if isinstance(value, list) else value for key, value in curve.items()}
        return thin | {"span": _whole(curve.get("span")) * step}

    def _note(self, text: str) -> None:
        if len(self._notes) < ENTRIES:
            self._notes[text[:TEXT]] = None
