"""Common parts of all figures: the canvas, colours, bands of spread, and reproducible files."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from compress.ranking import MetricKind

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#999999")
"""The palette of Okabe and Ito, which the colour-blind can distinguish."""

DASHES = ("-", "--", "-.", ":")


def canvas(entries: int = 0) -> tuple[Figure, Axes]:
    """Axes with a grid, and room for a legend of `entries` entries on the right."""
    figure = Figure(figsize=(8, max(3.8, 0.2 * entries)), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def style(number: int) -> tuple[str, str]:
    """(colour, dashes) of line `number` of a figure, from 0; the first 28 are different."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def band(
    axes: Axes, x: Sequence[float], means: Sequence[float], spreads: Sequence[float], label: str, look: tuple[str, str]
) -> None:
    """A line through `means` in a band as wide as `spreads` on each side; `look` is (colour, dashes)."""
    colour, dashes = look
    axes.plot(x, means, dashes, color=colour, label=label, marker="o", markersize=3)
    low = [m - s for m, s in zip(means, spreads, strict=True)]
    high = [m + s for m, s in zip(means, spreads, strict=True)]
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def axis_label(kind: MetricKind, where: str) -> str:
    """The label of an axis of a metric's figures, such as "loss on the test samples (10^-3)"."""
    unit = {"10^-3": "10$^{-3}$"}.get(kind.unit, kind.unit)
    return f"{kind.name} {where}" + (f" ({unit})" if unit else "")


def log_losses(axes: Axes) -> None:
    """A log axis for losses of very different size, with ticks such as 60 rather than 6 x 10^1."""
    axes.set_yscale("log")
    for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatted(LogFormatter(minor_thresholds=(2, 0.5)))


def save(figure: Figure, name: str, path: Path) -> None:
    """Draw the figure `name` to `path`, an .svg or .png file.

    The file has neither a date nor random names: the same data give the same file.
    """
    if path.suffix == ".svg":
        with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
            figure.savefig(path, metadata={"Date": None})
    else:
        figure.savefig(path, dpi=110)
