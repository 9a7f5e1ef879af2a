"""The paper's figures from results.json, as SVG and PNG: our lines with the spread over seeds, the paper's points."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.paper import printed
from compress.paper.experiments import COMPLETE
from compress.paper.findings import NAMES, Results, dense, line, mean, spread
from compress.remove.decay import CURVES
from compress.report import plots

# (method, final, before removal, label, colour, dashes): the palette of Okabe and Ito, for the colour-blind.
LINES: tuple[tuple[str, float | None, bool, str, str, str], ...] = (
    ("hard", None, False, "hard", "#999999", "-"),
    ("retrained", None, False, "hard and retrained", "#0072B2", "-"),
    ("soft", COMPLETE, False, "soft", "#D55E00", "-"),
    ("soft", 0.5, True, "soft, decay stops at 0.5: before removal", "#CC79A7", ":"),
    ("soft", 0.5, False, "soft, decay stops at 0.5: after removal", "#CC79A7", "--"),
    ("retrained_all", None, False, "hard, everything retrains", "#56B4E9", "-."),
    ("soft_all", COMPLETE, False, "soft, everything retrains", "#E69F00", "-."),
    ("small", None, False, "trained from the start at that size, 5 epochs", "#009E73", "-."),
)
KINDS = ("svg", "png")
# The number in the paper, the experiment, the data set.
CURVE_FIGURES = (
    ("2", "classification", "mnist"),
    ("4", "classification", "fashion_mnist"),
    ("5", "classification", "cifar10"),
    ("6_mnist", "decoder", "mnist"),
    ("6_fashion_mnist", "decoder", "fashion_mnist"),
    ("6_cifar10", "decoder", "cifar10"),
    ("8", "latent", "mnist"),
    ("9", "latent", "cifar10"),
    ("10", "latent", "fashion_mnist"),
)


def names(results: Results) -> list[str]:
    """The figures whose cells exist, in the paper's order."""
    curves = [f"fig{number}" for number, experiment, dataset in CURVE_FIGURES if has(results, experiment, dataset)]
    found = ["fig1", *curves, *(["fig3"] if confusion(results) is not None else [])]
    return sorted(found, key=lambda name: (int(name.removeprefix("fig").partition("_")[0]), name))


FILES = tuple(f"fig{number}.{kind}" for number in ("1", "3", *(row[0] for row in CURVE_FIGURES)) for kind in KINDS)
"""All files that `write_all` may write."""


def write_all(results: Results, folder: Path) -> None:
    """Draw `names` to `folder`, each as SVG and PNG."""
    curves = {f"fig{number}": (experiment, dataset) for number, experiment, dataset in CURVE_FIGURES}
    for name in names(results):
        if name in curves:
            figure = _curves(results, *curves[name])
        elif (counts := confusion(results)) is not None and name == "fig3":
            figure = _confusion(counts)
        else:
            figure = _decays()
        for suffix in KINDS:
            plots.save(figure, name, folder / f"{name}.{suffix}")


def has(results: Results, experiment: str, dataset: str) -> bool:
    return bool(line(results, experiment, dataset, "soft", COMPLETE))


def confusion(results: Results) -> list[list[int]] | None:
    """The confusion matrix of the 95 % soft-pruned MNIST classifier on its training images, for the first seed."""
    for cell in results["cells"]:
        where = (cell["experiment"], cell["dataset"], cell["method"], cell["level"], cell["final"], cell["seed"])
        if where == ("classification", "mnist", "soft", 0.95, COMPLETE, 0):
            counts: list[list[int]] = cell["result"]["confusion"]
            return counts
    return None


def _decays() -> Figure:
    figure, axes = plots.canvas()
    progress = [step / 200 for step in range(201)]
    for name, curve in CURVES.items():
        axes.plot([100 * p for p in progress], [curve(p) for p in progress], label=name)
    axes.set(xlabel="progress of the decay (%)", ylabel="factor on a pruned weight", title="Decay curves")
    figure.legend(loc="outside right center")
    return figure


def _curves(results: Results, experiment: str, dataset: str) -> Figure:
    figure, axes = plots.canvas()
    classification = experiment == "classification"
    for method, final, before, label, colour, dashes in LINES:
        if method == "hard" and not classification:
            continue  # far above all others, as the paper says; the tables have it
        if values := line(results, experiment, dataset, method, final, before=before):
            levels = [100 * level for level in values]
            means, spreads = (list(map(figure_of, values.values())) for figure_of in (mean, spread))
            plots.band(axes, levels, means, spreads, label, (colour, dashes))
    if start := dense(results, experiment, dataset):
        axes.axhline(mean(start), color="black", linewidth=0.8, label="dense")
    _paper_points(axes, experiment, dataset)
    if not classification:
        plots.log_losses(axes)
    unit = "accuracy on the test images (%)" if classification else "loss on the test images (10$^{-3}$)"
    what = {"classification": "weights", "decoder": "decoder's weights", "latent": "latent nodes"}[experiment]
    axes.set(xlabel=f"pruned {what} (%)", ylabel=unit, title=f"{NAMES[dataset]}: {experiment}")
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def _paper_points(axes: Axes, experiment: str, dataset: str) -> None:
    tables: Mapping[str, Mapping[str, printed.Lines]] = {"classification": printed.TABLE_I, "latent": printed.TABLE_II}
    points = tables.get(experiment, {}).get(dataset, {})
    for method, marker, colour in (("retrained", "s", "#0072B2"), ("soft", "D", "#D55E00")):
        if method in points:
            levels = [100 * level for level in points[method]]
            label = f"the paper: {'hard and retrained' if method == 'retrained' else method}"
            style: dict[str, Any] = {"markerfacecolor": "none", "linestyle": "none"}
            axes.plot(levels, list(points[method].values()), marker=marker, color=colour, label=label, **style)


def _confusion(counts: list[list[int]]) -> Figure:
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    shares = [[100 * count / sum(row) for count in row] for row in counts]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, values in enumerate(shares):
        for column, share in enumerate(values):
            axes.text(
                column,
                row,
                f"{share:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share > 50 else "black",
            )
    axes.set(
        xlabel="predicted digit",
        ylabel="true digit",
        title="MNIST, 95 % pruned softly, training images",
        xticks=range(len(counts)),
        yticks=range(len(counts)),
    )
    figure.colorbar(image, label="share of the true digit's images (%)")
    return figure
