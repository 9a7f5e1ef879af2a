"""What a network must keep to, as people write it: `1.05x` of the dense network's, or a number."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.errors import InputError
from compress.recipe import schema
from compress.results import Metric
from compress.sweep_results import BoundKind, ComparedMetric, Goal, QualityKind, TrialNetwork

QUALITY: tuple[QualityKind, ...] = ("loss", "accuracy_drop")

_OPTIONS: Mapping[BoundKind, str] = {
    "loss": "--max-loss",
    "accuracy_drop": "--max-accuracy-drop",
    "params": "--max-params",
    "macs": "--max-macs",
    "latency": "--max-latency",
}


@dataclass(frozen=True)
class Bound:
    """At most `value`, or `value` times what the dense network has; accuracy is in percentage points below its."""

    kind: BoundKind
    value: float
    relative: bool
    text: str

    def limit(self, dense: float) -> float:
        """The most that `measured` may be, given what it is of the dense network; accuracy is a drop from that."""
        if self.kind == "accuracy_drop":
            return dense + self.value
        return self.value * dense if self.relative else self.value

    @property
    def relative_quality(self) -> bool:
        """Whether it hangs on how good the dense network is."""
        return self.kind == "accuracy_drop" or (self.kind == "loss" and self.relative)


def badness(kind: BoundKind, metric: Metric) -> float:
    """What a bound of this quality is on, smaller = better: of accuracy, the share of wrong answers in percent."""
    return metric["loss"] if kind == "loss" else 100 * (1 - metric["accuracy"])


def measured(kind: BoundKind, found: TrialNetwork) -> float:
    """What a bound of this kind is on, smaller = better."""
    if kind == "loss" or kind == "accuracy_drop":
        return badness(kind, found["metric"])
    return found["latency"]["ratio"] if kind == "latency" else found[kind]


def shown(kind: BoundKind, metric: Metric) -> float:
    """What tables and figures have where quality is of this kind: the loss in 10^-3, or the accuracy in percent."""
    return 1000 * metric["loss"] if kind == "loss" else 100 * metric["accuracy"]


def unit(kind: BoundKind) -> ComparedMetric:
    return {"name": "loss", "unit": "10^-3"} if kind == "loss" else {"name": "accuracy", "unit": "%"}


def parse(kind: BoundKind, text: str, option: str | None = None) -> Bound:
    """Read "1.05x" or "0.5".

    Args:
        option: of the command line, for messages; the kind's own if absent.

    Raises:
        InputError: it is no number, or one that no smaller network can keep to.
    """
    option = option or _OPTIONS[kind]
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(x?)\s*", text)
    if match is None or not math.isfinite(value := float(match[1])):
        raise InputError(
            f"{option} {text}: give a number, or a multiple of the dense network's such as {_EXAMPLES[kind]}"
        )
    relative = bool(match[2])
    if kind == "accuracy_drop" and (relative or value >= 100):
        raise InputError(f"{option} {text}: give percentage points below the dense network's accuracy, such as 0.5")
    if kind == "loss" and relative and value < 1:
        raise InputError(f"{option} {text}: even the dense network has 1x; allow it at least that, such as 1.05x")
    if kind == "latency" and not relative:
        raise InputError(
            f"{option} {text}: give a multiple of the dense network's, as 0.5x; milliseconds differ between machines"
        )
    if kind not in QUALITY and (value == 0 or (relative and value >= 1)):
        raise InputError(f"{option} {text}: a smaller network is searched for; give a bound between 0x and 1x")
    return Bound(kind, value, relative, f"{option} {text.strip()}")


def tolerated(text: str) -> Bound:
    """Read what `--tolerate` takes: a multiple of the dense network's loss, "1.05x", or points of accuracy, "0.5"."""
    return parse("loss" if "x" in text else "accuracy_drop", text, "--tolerate")


_EXAMPLES: Mapping[BoundKind, str] = {
    "loss": "1.05x",
    "accuracy_drop": "0.5",
    "params": "0.5x",
    "macs": "0.5x",
    "latency": "0.5x",
}


def goal_of(bounds: Sequence[Bound], task: schema.Task | schema.OwnTask, *, knee: bool = False) -> Goal:
    """The smallest network within bounds of quality, the best one within bounds of size, or the knee.

    Raises:
        InputError: no bound, bounds of both kinds, or an accuracy of a task that has none.
    """
    quality = [bound for bound in bounds if bound.kind in QUALITY]
    size = [bound for bound in bounds if bound.kind not in QUALITY]
    if knee and bounds:
        raise InputError(f"--knee and {bounds[0].text}: each says which network to take; keep one of the two")
    if knee:
        return "knee"
    if quality and size:
        raise InputError(
            f"{quality[0].text} asks for the smallest network and {size[0].text} for the best one; keep one of the two"
        )
    if not bounds:
        raise InputError(f"nothing bounds the search; give one of {', '.join(_OPTIONS.values())}, or --knee")
    for bound in quality:
        require_task(bound, task)
    return "smallest" if quality else "best"


def require_task(bound: Bound, task: schema.Task | schema.OwnTask) -> None:
    """Raises InputError: points of accuracy, and the task has none."""
    if bound.kind == "accuracy_drop" and not schema.has_accuracy(task):
        name = task if isinstance(task, str) else "of the recipe"
        raise InputError(f"{bound.text}: the task {name} has no accuracy to lose; bound the loss, as 1.05x")


def require_reach(bounds: Sequence[Bound], dense: TrialNetwork) -> None:
    """Refuse bounds that decide nothing, given what the dense network has.

    Raises:
        InputError: a quality that even the dense network misses, or a size that it keeps to already.
    """
    for bound in bounds:
        if bound.kind == "latency":  # that of the dense network is what it is relative to
            continue
        found = measured(bound.kind, dense)
        holds = found <= bound.limit(found)
        if bound.kind in QUALITY and not holds:
            raise InputError(
                f"{bound.text}: even the dense network misses it, with {found:.4g} on the "
                f"held-out training images; allow more, as {_EXAMPLES[bound.kind]}"
            )
        if bound.kind not in QUALITY and holds:
            raise InputError(f"{bound.text}: the dense network keeps to it, with {found:,.0f}; ask for less")
