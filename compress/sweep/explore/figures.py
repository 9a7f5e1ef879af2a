"""The figures of a sensitivity and a search: the metric over sparsity or size."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from compress.ranking import LOSS, read
from compress.report import explored, plots
from compress.sweep_results import Search, Sensitivity

WHERE = "on held-out samples"


def sensitivity(results: Sensitivity) -> Figure:
    """A line for every layer over its sparsity; for a single layer of nodes, over the number of nodes left."""
    figure, axes = plots.canvas(len(results["layers"]) + 2)
    single = explored.is_one_layer_of_nodes(results)
    for number, layer in enumerate(results["layers"]):
        colour, dashes = plots.style(number)
        points = [
            (point["left"] if single else 100 * point["sparsity"], point["value"])
            for point in layer["curve"]
            if point["value"] is not None
        ]
        at, values = [place for place, _ in points], [value for _, value in points]
        axes.plot(at, values, dashes, color=colour, label=layer["name"], marker="o", markersize=3)
    axes.axhline(results["dense"]["value"], color="black", linewidth=0.8, label="dense")
    if results["knee"] is not None:
        values_by_size = {point["left"]: point["value"] for point in results["layers"][0]["curve"]}
        if (value := values_by_size[results["knee"]]) is not None:
            _ring(axes, results["knee"], value, "knee")
    metric = read(results["metric"])
    if metric.form == "thousandths":
        plots.log_losses(axes)
    if single:
        _sizes(axes)
    unit = plots.axis_label(metric, WHERE)
    what = f"{results['target']}: nodes left" if single else "pruned of the layer alone, without retraining (%)"
    axes.set(xlabel=what, ylabel=unit, title=results["recipe"]["name"])
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def front(results: Search) -> Figure:
    """All trials, the front of those that no other trial beats, and the winner."""
    figure, axes = plots.canvas()
    size, dense = results["size"], results["dense"]
    networks = {trial["number"]: trial for trial in results["trials"] if "failed" not in trial}
    done = list(networks.values())
    axes.plot(
        [explored.size_of(trial, size) for trial in done],
        [trial["value"] for trial in done],
        "o",
        color=plots.COLOURS[6],
        markersize=4,
        label="tried",
    )
    best = [networks[number] for number in results["front"]]
    axes.plot(
        [explored.size_of(trial, size) for trial in best],
        [trial["value"] for trial in best],
        "o-",
        color=plots.COLOURS[0],
        markersize=4,
        label="front",
    )
    axes.plot([explored.size_of(dense, size)], [dense["value"]], "s", color="black", label="dense")
    if results["winner"] is not None:
        won = networks[results["winner"]["trial"]]
        _ring(axes, explored.size_of(won, size), won["value"], "winner")
    metric = read(results["metric"])
    if metric.form == "thousandths":
        plots.log_losses(axes)
    axes.set(xlabel=explored.SIZES[size], ylabel=plots.axis_label(metric, WHERE), title=results["recipe"]["name"])
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def curve(results: Search) -> Figure:
    """The loss over the number of nodes left in a single layer, with its chord and its knee, on log axes."""
    figure, axes = plots.canvas()
    points = results["curve"]
    sizes, losses = [point["left"] for point in points], [1000 * point["loss"] for point in points]
    axes.plot(sizes, losses, "o-", color=plots.COLOURS[0], markersize=4, label="retrained")
    axes.plot([sizes[0], sizes[-1]], [losses[0], losses[-1]], ":", color=plots.COLOURS[6], label="chord")
    axes.axhline(1000 * results["dense"]["metric"]["loss"], color="black", linewidth=0.8, label="dense")
    if results["knee"] is not None:
        at = sizes.index(results["knee"]["left"])
        _ring(axes, sizes[at], losses[at], "knee")
    plots.log_losses(axes)
    _sizes(axes)
    axes.set(xlabel="nodes left", ylabel=plots.axis_label(LOSS, WHERE), title=results["recipe"]["name"])
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def _ring(axes: Axes, x: float, y: float, label: str) -> None:
    axes.plot([x], [y], "o", color=plots.COLOURS[1], markersize=12, markerfacecolor="none", label=label)


def _sizes(axes: Axes) -> None:
    """An axis for numbers of nodes, by halvings, with plain numbers."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
