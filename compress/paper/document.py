"""docs/paper.md from results.json: every table and figure beside the paper's own, and a verdict per claim."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compress.paper import printed
from compress.paper.experiments import COMPLETE, EARLY
from compress.paper.figures import confusion, has, names
from compress.paper.findings import (
    LEVELS,
    NAMES,
    Calibrated,
    Line,
    Results,
    calibrated,
    dense,
    line,
    mean,
    spread,
    verdicts,
)

DATASETS = ("mnist", "fashion_mnist", "cifar10", "mnist_sample")

# title -> (method, final), after removal
COLUMNS: Mapping[str, tuple[str, float | None]] = {
    "hard": ("hard", None),
    "retrained": ("retrained", None),
    "soft": ("soft", COMPLETE),
    "everything retrains: hard": ("retrained_all", None),
    "everything retrains: soft": ("soft_all", COMPLETE),
    "small from the start": ("small", None),
}
FINALS = (COMPLETE, *EARLY)


def page(results: Results, folder: str) -> str:
    """The whole page; its figures are in `folder`, beside it."""
    drawn = {name: f"{folder}/{name}.svg" for name in names(results)}
    parts = [
        _introduction(results, folder),
        _verdicts(results),
        "## Decay curves (figure 1)",
        _figure(drawn, "fig1", "The six decay curves that recipes can name; the paper uses the exponential one."),
        *_section(results, drawn, "classification", "## Classification (section IV)", ("fig2", "fig4", "fig5")),
        *_confusion(results, drawn),
        *_calibration(results),
        *_section(
            results,
            drawn,
            "decoder",
            "## An autoencoder's decoder (section V)",
            ("fig6_mnist", "fig6_fashion_mnist", "fig6_cifar10"),
        ),
        *_section(results, drawn, "latent", "## The latent space (section VI)", ("fig8", "fig10", "fig9")),
        _limits(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(results: Results, folder: str) -> str:
    count, planned = len(results["cells"]), results["planned"]
    missing = f" {planned - count:,} of them have not been run yet: their levels or seeds are missing below."
    return f"""# The paper, reproduced

Richard Menzies and Paul Siebert, "Soft Pruning and Latent Space Dimensionality Reduction". This page is written by
`compress reproduce --data-root DIR` from [results.json]({folder}/results.json), which has every cell with its seed
and settings: {count:,} of {planned:,} cells, measured on the test images, on {results["machine"]["cpu"]}, one thread
per cell, torch {results["versions"]["torch"]}.{missing if count < planned else ""}
[The networks](networks.md) says where the paper's tables leave them open.

Figures are means over seeds, ± the standard deviation between them where there are several. *After removal* means that
what was pruned is exactly zero; *before removal* is the last moment before the decayed weights are cut."""


def _verdicts(results: Results) -> str:
    rows = [(one.claim, f"**{one.verdict}**", one.why) for one in verdicts(results)]
    return "## The claims of the abstract\n\n" + _table(("claim", "verdict", "measured"), rows)


def _section(
    results: Results, drawn: dict[str, str], experiment: str, title: str, figures: Sequence[str]
) -> Iterable[str]:
    datasets = [dataset for dataset in DATASETS if has(results, experiment, dataset)]
    if not datasets:
        return
    yield title
    yield _SETTINGS[experiment]
    for name in figures:
        yield _figure(drawn, name, f"Figure {name.removeprefix('fig').partition('_')[0]} of the paper.")
    for dataset in datasets:
        yield f"### {NAMES[dataset]}\n\n{_about(results, experiment, dataset)}"
        yield _levels(results, experiment, dataset)
        yield _endings(results, experiment, dataset)


_SETTINGS = {
    "classification": """\
Global magnitude over the dense layers' weights, one epoch of SGD with a learning rate of 0.01 and batches of 64; the
soft decay takes the whole epoch, so that nothing is retrained after it, as in the paper. Percent correct.""",
    "decoder": """\
Global magnitude over the decoder's weights, one epoch of AdamW (1e-3, weight decay 1e-4), batches of 128, everything
trainable; the soft decay takes the whole epoch. Mean squared error x 10^-3.""",
    "latent": """\
Skeletonization, both sides of a node pruned, five epochs of AdamW on the layers next to the latent nodes, everything
else frozen, batches of 128; the soft decay takes all five. Mean squared error x 10^-3. Two more lines: everything
trainable, and networks of the size that is left, trained from the start for as many epochs as the others are
retrained.""",
}


def _about(results: Results, experiment: str, dataset: str) -> str:
    start = dense(results, experiment, dataset)
    network = _network(results, experiment, dataset)
    first = network["data"]["train"]
    images = f"the first {first:,} training images" if first else "all training images that are there"
    return (
        f"Dense: {_shown(start)} ({len(start)} seed{'s' if len(start) > 1 else ''}), after "
        f"{network['train']['epochs']} epochs on {images}."
    )


def _network(results: Results, experiment: str, dataset: str) -> Mapping[str, Any]:
    """How the dense network was trained."""
    where = (experiment, dataset, "dense")
    cell = next(cell for cell in results["cells"] if (cell["experiment"], cell["dataset"], cell["method"]) == where)
    found: Mapping[str, Any] = results["networks"][cell["network"]]
    return found


def _levels(results: Results, experiment: str, dataset: str) -> str:
    lines = {title: line(results, experiment, dataset, *column) for title, column in COLUMNS.items()}
    lines = {title: found for title, found in lines.items() if found}
    paper = _printed(experiment, dataset)
    titles = ["pruned", *lines, *(f"paper: {method}" for method in paper)]
    rows = [
        (
            f"{level:.1%}".replace(".0%", "%"),
            *(_at(found, level) for found in lines.values()),
            *(_number(points.get(level)) for points in paper.values()),
        )
        for level in sorted({level for found in lines.values() for level in found})
    ]
    return _table(titles, rows)


def _endings(results: Results, experiment: str, dataset: str) -> str:
    """Soft pruning just before and just after the rest of the weights is cut, by the end of the decay."""
    found = {
        (final, before): line(results, experiment, dataset, "soft", final, before=before)
        for final in FINALS
        for before in (True, False)
    }
    levels = sorted(set(found[0.5, True]))
    if not levels:
        return ""
    rows = [
        (f"{level:.0%}", f"{final:g}", _at(found[final, True], level), _at(found[final, False], level))
        for level in levels
        for final in FINALS
    ]
    return "Where the decay ends, and what the final cut does:\n\n" + _table(
        ("pruned", "the decay ends at", "before removal", "after removal"), rows
    )


def _confusion(results: Results, drawn: dict[str, str]) -> Iterable[str]:
    counts = confusion(results)
    if counts is None:
        return
    recall = {digit: 100 * row[digit] / sum(row) for digit, row in enumerate(counts)}
    order = sorted(recall, key=lambda digit: -recall[digit])
    best, worst = (
        " and ".join(f"{digit} ({recall[digit]:.0f} %)" for digit in some) for some in (order[:2], order[-2:])
    )
    sevens = 100 * sum(counts[7]) / sum(map(sum, counts))
    yield "### The confusion matrix (figure 3)"
    yield _figure(drawn, "fig3", "Figure 3 of the paper: the 95 % soft-pruned MNIST classifier on its training images.")
    yield f"""\
Most often right: {best}; least often: {worst}. The paper names 1 and 7, and 3 and 8.

Figure 3 is of the training images, and Table I may be too: its 10.4 % for hard pruning on MNIST is the share of sevens
among all 60,000 training images (6,265). Of the 50,000 used here {sevens:.2f} % are sevens, and 10.28 % of the test
images. A network that says seven to everything would be right that often."""


def _calibration(results: Results) -> Iterable[str]:
    found = calibrated(results)
    if not found:
        return
    wanted = printed.TABLE_I["mnist"]
    rows = [
        ("the paper", *[""] * 5, *_percents(wanted["hard"].values()), *_percents(wanted["retrained"].values())),
        *(
            (
                one.start,
                str(one.batch_size),
                str(one.epochs),
                "pruned" if one.bias else "kept",
                f"{one.dense:.1f}",
                f"{one.distance:.1f}",
                *_percents(one.hard),
                *_percents(one.retrained),
            )
            for one in found[:8]
        ),
    ]
    yield "### Which network the paper may have pruned (Table I)"
    yield f"""\
The paper names neither the length of the training, nor the batch size, nor the initial weights, nor what becomes of
biases. {len(found)} settings were tried on MNIST, one seed each; these come nearest to its hard columns ("off by": mean
difference in points)."""
    titles = ("start", "batch", "epochs", "biases", "dense", "off by")
    yield _table((*titles, *(f"{method} {level:.0%}" for method in ("hard", "retrained") for level in LEVELS)), rows)
    yield _nearest(found)


def _nearest(found: Sequence[Calibrated]) -> str:
    nearest = found[0]
    text = f"""\
The nearest is a network that was trained briefly: {nearest.epochs} epochs with batches of {nearest.batch_size}. On the
training images its hard column is {" / ".join(_percents(nearest.hard_on_training))}. Why hard pruning ends there: no
initial weight of the first layer exceeds 0.076, the square root of 6 / (784 + 256), while 7.9 % of all weights, in
the layers after it, do. Where training has moved them little, a global threshold that keeps 5 % takes the first layer
away, and what is left answers every image alike."""
    with_soft = next((one for one in found if one.soft), None)
    if with_soft is None:
        return text
    soft = printed.TABLE_I["mnist"]["soft"]
    rows = [("the paper", "", *_percents(soft.values()), "")]
    distances = {}
    for final, columns in with_soft.soft.items():
        for when, values in columns.items():
            off = mean([abs(one - other) for one, other in zip(soft.values(), values, strict=True)])
            distances[final, when] = off
            rows.append((f"{final:g}", f"{when} removal", *_percents(values), f"{off:.1f}"))
    final, when = min(distances, key=lambda place: distances[place])
    complete = min(distances[place] for place in distances if place[1] == "after")
    start = f"start {with_soft.start}, batches of {with_soft.batch_size}, {with_soft.epochs} epochs, biases kept"
    return "\n\n".join(
        (
            text,
            f"Soft pruning of the nearest such network ({start}), by where the decay ends:",
            _table(("the decay ends at", "", *(f"{level:.0%}" for level in LEVELS), "off by"), rows),
            (
                f"The paper's soft column is nearest to a decay that ends at {final:g}, measured {when} removal: "
                f"{distances[final, when]:.1f} points off. The nearest after removal is {complete:.1f} points off."
            ),
        )
    )


def _limits(results: Results) -> str:
    reduced = "- The convolutional autoencoder of section VI (figure 9) has not been run yet."
    if has(results, "latent", "cifar10"):
        network = _network(results, "latent", "cifar10")
        reduced = f"""\
- The convolutional autoencoder of section VI costs hours on a CPU: it was trained for {network["train"]["epochs"]}
  epochs on the first {network["data"]["train"]:,} images and measured on {network["data"]["test"]:,}, in bfloat16
  while training and float32 while measuring, with one seed and the paper's four levels. Its
  figures compare the methods with each other and not with the paper's losses."""
    return f"""## What was reduced, and what is different

- CIFAR-10 has 41,000 training and 10,000 test images here, not 50,000 and 10,000. Its autoencoders have one seed.
{reduced}
- The autoencoders were trained briefly (it says above how long), and the paper's own losses are lower than those of the
  dense networks here. What is compared is the rise over the dense network, and soft with hard.
- The learning rate is constant; the paper names no schedule. The shipped recipes train the autoencoders with a cosine,
  which ends lower."""


def _printed(experiment: str, dataset: str) -> dict[str, Mapping[float, float]]:
    tables = {"classification": printed.TABLE_I, "latent": printed.TABLE_II}
    return dict(tables[experiment].get(dataset, {})) if experiment in tables else {}


def _figure(drawn: dict[str, str], name: str, caption: str) -> str:
    return f"![{caption}]({drawn[name]})" if name in drawn else ""


def _at(found: Line, level: float) -> str:
    return _shown(found[level]) if level in found else ""


def _shown(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{mean(list(values)):.2f}" + (f" ± {spread(list(values)):.2f}" if len(values) > 1 else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _percents(values: Iterable[float]) -> tuple[str, ...]:
    return tuple(f"{value:.1f}" for value in values)


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(titles)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows))
