"""Draws the picture of README.md: bytes, time and accuracy of three networks, dense, slim and slim in int8.

    python docs/picture.py

The figures are those of docs/benchmarks/choices.json; benchmarks/choices.py measures them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.report import plots

DOCS = Path(__file__).parent
NETWORKS = {"resnet": "ResNet-20\nCIFAR-10", "lstm": "LSTM\nMNIST by rows", "bert": "BERT\nsentences"}
CHOICES = {"dense": "dense", "slim": "slim", "slim_int8": "slim int8"}
HEIGHT = 0.27
Choice = dict[str, Any]

# title of a panel -> its figure of a choice, and how the figure is written
PANELS: dict[str, tuple[Callable[[Choice], float], str]] = {
    "size, KB": (lambda choice: choice["bytes"] / 1e3, "{:,.0f}"),
    "time of one sample, ms": (lambda choice: choice["latency_ms"]["1"]["p50"], "{:.3f}"),
    "test accuracy, %": (lambda choice: 100 * choice["metric"]["accuracy"], "{:.1f}"),
}


def main() -> None:
    measured = json.loads((DOCS / "benchmarks" / "choices.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (title, (figure_of, form)) in zip(axes, PANELS.items(), strict=True):
        draw(panel, measured, figure_of, form)
        panel.set_title(title, fontsize=10)
    axes[0].set_yticks(range(len(NETWORKS)), NETWORKS.values())
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(CHOICES), frameon=False)
    plots.save(figure, "result", DOCS / "images" / "result.svg")


def draw(panel: Axes, measured: dict[str, Any], figure_of: Callable[[Choice], float], form: str) -> None:
    """A group of bars for each network; every bar is relative to the network's dense one, with its own figure."""
    for number, (choice, label) in enumerate(CHOICES.items()):
        values = [figure_of(measured[name]["choices"][choice]) for name in NETWORKS]
        dense = [figure_of(measured[name]["choices"]["dense"]) for name in NETWORKS]
        places = [place + (number - 1) * HEIGHT for place in range(len(NETWORKS))]
        shares = [value / whole for value, whole in zip(values, dense, strict=True)]
        bars = panel.barh(places, shares, 0.9 * HEIGHT, color=plots.COLOURS[number], label=label)
        panel.bar_label(bars, [f" {form.format(value)}" for value in values], fontsize=9)
    panel.set_xlim(0, 1.3)
    panel.set_xticks([])
    panel.spines[["top", "right", "bottom"]].set_visible(False)


if __name__ == "__main__":
    main()
