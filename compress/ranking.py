"""What each metric means: whether larger or smaller is better, its unit, how it is printed, and what a loss of it is.

No other place decides by the name of a metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

Better = Literal["larger", "smaller"]

Form = Literal["share", "thousandths", "number", "level"]
"""share: shown in percent, and compared in percentage points. thousandths: a number that tables show in 10^-3. number:
compared in percent of what it was. level: compared by its difference, as decibels are."""


@dataclass(frozen=True)
class MetricKind:
    """A metric, and how its figures are read.

    unit: of the figure as tables show it.
    """

    name: str
    better: Better
    form: Form
    unit: str = ""

    @property
    def larger(self) -> bool:
        return self.better == "larger"

    def scaled(self, value: float) -> float:
        """The value in `unit`: 0.982 as 98.2 (%), 0.00469 as 4.69 (10^-3)."""
        return value * _SCALES.get(self.form, 1)

    def text(self, value: float) -> str:
        """The value as shown in a table or sentence: "98.20 %", "0.00469", "24.10 dB"."""
        if self.form == "share":
            return f"{100 * value:.2f} %"
        return f"{value:.2f} {self.unit}" if self.form == "level" else f"{value:.4g}"

    @property
    def heading(self) -> str:
        """Its name, with its unit in brackets where it has one."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def figure(self, scaled: float) -> str:
        """A value in `unit`, without it, as a table has it below its heading."""
        return f"{scaled:.4g}" if self.form == "number" else f"{scaled:.2f}"

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
