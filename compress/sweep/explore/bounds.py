"""Bounds on a network as people write them: `1.05x` the dense network's value, or a number."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.errors import InputError
from compress.ranking import LOSS, MetricKind
from compress.results import Metric
from compress.sweep_results import BoundKind, Goal, QualityKind, TrialNetwork

QUALITY: tuple[QualityKind, ...] = ("loss", "drop")

_OPTIONS: Mapping[BoundKind, str] = {
    "loss": "--max-loss",
    "drop": "--max-drop",
    "params": "--max-params",
    "macs": "--max-macs",
    "latency": "--max-latency",
}


@dataclass(frozen=True)
class Bound:
    """At most `value`, or `value` times the dense network's; a drop is in the ranking metric's `unit_of_drop`."""

    kind: BoundKind
    value: float
    relative: bool
    text: str

    def limit(self, dense: float, ranked: MetricKind) -> float:
        """The largest allowed `measured`, given that of the dense network."""
        if self.kind == "drop":
            return ranked.tolerated(dense, self.value)
        return self.value * dense if self.relative else self.value

    @property
    def relative_quality(self) -> bool:
        """Whether it depends on the dense network's quality."""
        return self.kind == "drop" or (self.kind == "loss" and self.relative)


def quality(kind: BoundKind, ranked: MetricKind) -> MetricKind:
    """The metric that a bound on quality is about: the loss, or the one that ranks."""
    return LOSS if kind == "loss" else ranked


def badness(kind: BoundKind, metric: Metric, ranked: MetricKind) -> float:
    """The quantity of a bound on quality, smaller = better: the loss, or the share of wrong answers in percent."""
    about = quality(kind, ranked)
    return about.badness(metric[about.name])


def measured(kind: BoundKind, found: TrialNetwork, ranked: MetricKind) -> float:
    """The quantity of a bound of this kind, smaller = better."""
    if kind == "loss" or kind == "drop":
        return badness(kind, found["metric"], ranked)
    return found["latency"]["ratio"] if kind == "latency" else found[kind]


def shown(kind: BoundKind, metric: Metric, ranked: MetricKind) -> float:
    """The value in tables and figures for this kind of quality: the loss in 10^-3, or the accuracy in percent."""
    about = quality(kind, ranked)
    return about.scaled(metric[about.name])


def parse(kind: BoundKind, text: str, option: str | None = None) -> Bound:
    """Read "1.05x" or "0.5".

    Args:
        option: the option's name in messages; the kind's own if absent.

    Raises:
        InputError: it is not a number, or no smaller network can satisfy it.
    """
    option = option or _OPTIONS[kind]
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(x?)\s*", text)
    if match is None or not math.isfinite(value := float(match[1])):
        raise InputError(
            f"{option} {text}: give a number, or a multiple of the dense network's such as {_EXAMPLES[kind]}"
        )
    relative = bool(match[2])
    if kind == "drop" and (relative or value >= 100):
        raise InputError(
            f"{option} {text}: give what may be lost of the dense network's metric, in points or percent, such as 0.5"
        )
    if kind == "loss" and relative and value < 1:
        raise InputError(f"{option} {text}: the dense network itself has 1x; allow at least that, such as 1.05x")
    if kind == "latency" and not relative:
        raise InputError(
            f"{option} {text}: give a multiple of the dense network's, such as 0.5x; milliseconds differ by machine"
        )
    if kind not in QUALITY and (value == 0 or (relative and value >= 1)):
        raise InputError(f"{option} {text}: the search is for a smaller network; give a bound between 0x and 1x")
    return Bound(kind, value, relative, f"{option} {text.strip()}")


def tolerated(text: str) -> Bound:
    """Read `--tolerate`: a multiple of the dense network's loss, "1.05x", or points of its accuracy, "0.5"."""
    return parse("loss" if "x" in text else "drop", text, "--tolerate")


_EXAMPLES: Mapping[BoundKind, str] = {
    "loss": "1.05x",
    "drop": "0.5",
    "params": "0.5x",
    "macs": "0.5x",
    "latency": "0.5x",
}


def goal_of(bounds: Sequence[Bound], *, knee: bool = False) -> Goal:
    """The smallest network within bounds of quality, the best one within bounds of size, or the knee.

    Raises:
        InputError: no bound, or bounds of both kinds.
    """
    good = [bound for bound in bounds if bound.kind in QUALITY]
    size = [bound for bound in bounds if bound.kind not in QUALITY]
    if knee and bounds:
        raise InputError(f"--knee and {bounds[0].text}: each decides which network wins; keep one of the two")
    if knee:
        return "knee"
    if good and size:
        raise InputError(
            f"{good[0].text} asks for the smallest network and {size[0].text} for the best one; keep one of the two"
        )
    if not bounds:
        raise InputError(f"nothing bounds the search; give one of {', '.join(_OPTIONS.values())}, or --knee")
    return "smallest" if good else "best"


def require_reach(bounds: Sequence[Bound], dense: TrialNetwork, ranked: MetricKind) -> None:
    """Refuse bounds that decide nothing, given the dense network's figures.

    Raises:
        InputError: a quality that even the dense network misses, or a size that it already satisfies.
    """
    for bound in bounds:
        if bound.kind == "latency":  # relative to the dense network's latency, so always below it
            continue
        found = measured(bound.kind, dense, ranked)
        holds = found <= bound.limit(found, ranked)
        if bound.kind in QUALITY and not holds:
            raise InputError(
                f"{bound.text}: even the dense network misses it, with {found:.4g} on the "
                f"held-out samples; allow more, such as {_EXAMPLES[bound.kind]}"
            )
        if bound.kind not in QUALITY and holds:
            raise InputError(f"{bound.text}: the dense network is already within it, with {found:,.0f}; ask for less")
