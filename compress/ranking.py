"""What each metric means: whether larger or smaller is better, its unit, how it is printed, and what a loss of it is.

No other place decides by the name of a metric.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NotRequired, TypedDict

Better = Literal["larger", "smaller"]

IntervalMethod = Literal["wilson", "agresti_min", "bootstrap", "paired_bootstrap"]
"""How the sampling error of a figure was found: see `compress.tasks.intervals`."""

Form = Literal["share", "thousandths", "number", "level"]
"""share: shown in percent, and compared in percentage points. thousandths: a number that tables show in 10^-3. number:
compared in percent of what it was. level: compared by its difference, as decibels are."""


@dataclass(frozen=True)
class MetricKind:
    """A metric, and how its figures are read.

    unit: of the figure as tables show it. plain: whether `figure` shows them without the unit.
    """

    name: str
    better: Better
    form: Form
    unit: str = ""
    plain: bool = False

    @property
    def larger(self) -> bool:
        return self.better == "larger"

    def scaled(self, value: float) -> float:
        """The value in `unit`: 0.982 as 98.2 (%), 0.00469 as 4.69 (10^-3)."""
        return value * _SCALES.get(self.form, 1)

    def text(self, value: float, error: float | None = None) -> str:
        """The value as shown in a table or sentence: "98.20 %", "24.10 dB"; with an error "98.2 ± 0.3 %".

        Args:
            error: its sampling error, which decides about the digits.
        """
        figure, spread, unit = self.parts(value, error)
        return " ".join(filter(None, [figure, spread and f"± {spread}", unit]))

    def parts(self, value: float, error: float | None = None) -> tuple[str, str, str]:
        """The value, its error ("" where it is not known) and its unit, as text."""
        unit = "" if self.form == "thousandths" else self.unit
        scale = _SCALES[self.form] if self.form == "share" else 1
        if error is not None and (both := uncertain(scale * value, scale * error)) is not None:
            return (*both, unit)
        places = ".2f" if self.form in ("share", "level") else ".4g" if abs(value) < 10_000 else ",.0f"
        return f"{scale * value:{places}}", "", unit

    @property
    def heading(self) -> str:
        """Its name, with its unit in brackets where it has one."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def figure(self, scaled: float) -> str:
        """A value in `unit`, without it, as a table has it below its heading."""
        if self.plain:
            return f"{scaled / _SCALES[self.form]:.4g}"
        return f"{scaled:.4g}" if self.form == "number" else f"{scaled:.2f}"

    def fitting(self, *scaled: float) -> "MetricKind":
        """The same for a table with these values: thousandths only where they are shorter than the numbers."""
        unwieldy = self.form == "thousandths" and scaled and not 0.1 <= max(map(abs, scaled)) < 100
        return replace(self, unit="", plain=True) if unwieldy else self

    def drop(self, before: float, after: float) -> float:
        """What was lost, in `unit_of_drop`; below 0 where the metric has become better.

        Where a number was 0, as the loss of a file compared with itself, it is percent of 1.
        """
        lost = before - after if self.larger else after - before
        if self.form == "level":
            return lost
        return 100 * lost if self.form == "share" else 100 * lost / (abs(before) or 1.0)

    @property
    def unit_of_drop(self) -> str:
        if self.form == "level":
            return f"{self.unit} of {self.name}".strip()
        return f"points of {self.name}" if self.form == "share" else f"% of the {self.name}"

    def badness(self, value: float) -> float:
        """Smaller is better: a share as percent that is missing to 1, and else the value or its negative."""
        if self.form == "share":
            return 100 * (1 - value if self.larger else value)
        return -value if self.larger else value

    def tolerated(self, badness: float, drop: float) -> float:
        """The largest `badness` that is at most `drop`, in `unit_of_drop`, worse than another one."""
        if self.form in ("share", "level"):
            return badness + drop
        return badness + drop / 100 * (abs(badness) or 1.0)


def uncertain(value: float, error: float) -> tuple[str, str] | None:
    """A value and its error in the digits that mean something: two of the error where it begins with 1, or else one.

    None where the error is 0 or not finite.
    """
    if not (error > 0 and math.isfinite(error) and math.isfinite(value)):
        return None
    exponent = math.floor(math.log10(error))
    places = -exponent + (round(error / 10.0**exponent, 6) < 2)
    if places > 5 and value:
        digits = max(0, places + math.floor(math.log10(abs(value))))
        return f"{value:.{digits}e}", f"{error:.{int(places + exponent > 0)}e}"
    places = max(0, places)
    return f"{value:,.{places}f}", f"{error:,.{places}f}"


_SCALES: Mapping[Form, int] = {"share": 100, "thousandths": 1000}


def _kinds(better: Better, form: Form, unit: str, names: str) -> dict[str, MetricKind]:
    return {name: MetricKind(name, better, form, unit) for name in names.split()}


KINDS: Mapping[str, MetricKind] = {
    **_kinds("smaller", "thousandths", "10^-3", "loss"),
    **_kinds(
        "larger",
        "share",
        "%",
        "accuracy balanced_accuracy worst_class_accuracy top_5_accuracy f1 precision recall specificity auroc "
        "average_precision exact_match jaccard matthews_corrcoef cohen_kappa r2 explained_variance pearson spearman "
        "ssim",
    ),
    **_kinds("smaller", "share", "%", "calibration_error mape smape"),
    **_kinds("smaller", "number", "", "mae mse rmse perplexity"),
    **_kinds("larger", "level", "dB", "psnr"),
}
"""The metrics that this package knows by name."""

LOSS, ACCURACY = KINDS["loss"], KINDS["accuracy"]


def kind_of(name: str, better: Better | None = None) -> MetricKind:
    """How a metric is read; one that is not in `KINDS` is a number, of which less is better unless `better` says so."""
    known = KINDS.get(name)
    if known is not None and better in (None, known.better):
        return known
    return MetricKind(name, better or "smaller", "number")


class Written(TypedDict):
    """A metric as results name it; `better` is absent in results of older versions."""

    name: str
    better: NotRequired[Better]


def read(found: Written) -> MetricKind:
    """The metric that results name."""
    return kind_of(found["name"], found.get("better"))


def default_of(metric: Mapping[str, float]) -> MetricKind:
    """What ranks where nothing is said: the accuracy where there is one, or else the loss."""
    return ACCURACY if "accuracy" in metric else LOSS


def drop(before: Mapping[str, float], after: Mapping[str, float], ranked: MetricKind) -> float:
    """What the metric `after` has lost of the ranking figure, in its `unit_of_drop`; below 0 where it has gained."""
    kind = present(ranked, before)
    return kind.drop(before[kind.name], after[kind.name])


def present(ranked: MetricKind, metric: Mapping[str, float]) -> MetricKind:
    """`ranked`, or the loss where this part of the data cannot have it, as AUROC without a positive sample."""
    return ranked if ranked.name in metric else LOSS
