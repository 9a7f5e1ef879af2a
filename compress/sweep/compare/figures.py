"""The curves of a comparison: the metric over sparsity, a line for every rival."""

from typing import Literal

from matplotlib.figure import Figure

from compress.ranking import read
from compress.report import plots, tables
from compress.sweep_results import Comparison

SPREAD: tuple[Literal["mean", "sd"], ...] = ("mean", "sd")


def curves(results: Comparison) -> Figure:
    """Means with the sample standard deviation over seeds; a level at which a rival diverged is left out."""
    figure, axes = plots.canvas(len(results["rivals"]) + 1)
    for number, (rival, label) in enumerate(tables.labels(results).items()):
        levels = [level for level in results["levels"] if level["rivals"][rival]["mean"] is not None]
        at = [100 * level["sparsity"] for level in levels]
        means, spreads = ([level["rivals"][rival][what] or 0.0 for level in levels] for what in SPREAD)
        plots.band(axes, at, means, spreads, label, plots.style(number))
    values = [dense["value"] for dense in results["dense"]]
    axes.axhline(sum(values) / len(values), color="black", linewidth=0.8, label="dense")
    metric = read(results["metric"])
    if metric.form == "thousandths":
        plots.log_losses(axes)
    unit = plots.axis_label(metric, "on the test samples")
    axes.set(xlabel=f"pruned {results['pruned']} (%)", ylabel=unit, title=results["recipe"]["name"])
    figure.legend(loc="outside right center", fontsize=8)
    return figure
