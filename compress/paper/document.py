"""docs/paper.md from results.json: every table and figure beside the paper's own, and a verdict per claim."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compress.paper import printed
from compress.paper.experiments import COMPLETE, EARLY, PAPER
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
from compress.paper.hypothesis import SUBJECTS, Gain, gain, where_it_holds
from compress.sweep.compare.summary import NOISE

DATASETS = ("mnist", "fashion_mnist", "cifar10", "mnist_sample")

# title -> (method, final), after removal
COLUMNS: Mapping[str, tuple[str, float | None]] = {
    "hard": ("hard", None),
    "retrained": ("retrained", None),
    "soft": ("soft", COMPLETE),
    "everything trains: retrained": ("retrained_all", None),
    "everything trains: soft": ("soft_all", COMPLETE),
    "small from the start": ("small", None),
}
FINALS = (COMPLETE, *EARLY)


def page(results: Results, folder: str) -> str:
    """The whole page; its figures are in `folder`, beside it."""
    drawn = {name: f"{folder}/{name}.svg" for name in names(results)}
    parts = [
        _introduction(results, folder),
        _verdicts(results),
        _hypothesis(results),
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
        *_nodes(results),
        _limits(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(results: Results, folder: str) -> str:
    count, planned = len(results["cells"]), results["planned"]
    missing = f" {planned - count:,} cells have not been run yet, so levels or seeds are missing below."
    source = _wrapped(
        f"""\
`compress reproduce --data-root DIR` writes this page from [results.json]({folder}/results.json), which has every cell
with its seed and settings: {count:,} of {planned:,} cells, measured on the test images, on {results["machine"]["cpu"]},
with one thread per cell and torch {results["versions"]["torch"]}.{missing if count < planned else ""}
[The networks](networks.md) shows our choices where the paper's tables are inconsistent."""
    )
    return f"""# The paper, reproduced

Richard Menzies and Paul Siebert, "Soft Pruning and Latent Space Dimensionality Reduction".

{source}

The tables compare three methods:

- *hard*: everything selected is set to zero at once, without retraining
- *retrained*: hard removal, then retraining
- *soft*: the selected weights or nodes decay while the network retrains

Figures are means over seeds, ± the standard deviation between seeds if there are several. They are measured *after
removal*, when everything pruned is exactly zero. *Before removal* is the last moment before the decayed weights are
set to zero."""


def _verdicts(results: Results) -> str:
    rows = [(one.claim, f"**{one.verdict}**", "<br>".join(one.why)) for one in verdicts(results)]
    return "\n\n".join(
        (
            "## The claims of the abstract",
            _table(("claim", "verdict", "measured"), rows),
            """\
A *decay to 0.5* stops at half of the start values and then removes them at once. Before removal, these weights are
still in the network.""",
        )
    )


def _hypothesis(results: Results) -> str:
    """One table over everything that is pruned. Its words follow from the rule that the page states."""
    gains = {
        (experiment, dataset, before): gain(results, experiment, dataset, before=before)
        for experiment in SUBJECTS
        for dataset in DATASETS
        for before in (False, True)
    }
    datasets = [dataset for dataset in DATASETS if any(gains[name, dataset, False] for name in SUBJECTS)]
    rows = []
    for experiment, subject in SUBJECTS.items():
        after, before = ([gains[experiment, dataset, early] for dataset in datasets] for early in (False, True))
        if any(after):
            cells = [_gained(one) for pair in zip(after, before, strict=True) for one in pair]
            rows.append((subject, f"**{where_it_holds(after, before)}**", *cells))
    if not rows:
        return ""
    titles = (f"{NAMES[dataset]}, {when}" for dataset in datasets for when in ("after", "before"))
    table = _table(("pruned", "the hypothesis", *titles), rows)
    return f"## Where the hypothesis holds\n\n{_RULE}\n\n{table}\n\n{_CAUTION}"


_RULE = f"""\
The paper's hypothesis is that removing weights or nodes slowly, while the network retrains, leaves a better network
than removing them at once and then retraining. The table shows what *soft* gains over *retrained*: in points of
accuracy for classifiers, in percent less loss for autoencoders.

- *After* removal, the decay is complete. *Before* removal, it has stopped at 0.5, and the pruned weights are still in
  the network.
- Each figure is the mean over the measured levels, ± the standard deviation between seeds. Seeds are paired.
- *Better* and *worse* are beyond the noise of the seeds: the paired t-test gives p < {NOISE:g}. *No difference* is
  within it. Fewer than three seeds are *not tested*.
- The hypothesis *holds* where soft is better after removal on every tested data set, and *holds in part* where it is
  on some of them. It *holds before removal only* where soft is better on none of them, but leads before removal: it is
  better, or ahead where that is not tested. In all other cases it *does not hold*."""

_CAUTION = """\
Three seeds show only differences that are nearly the same in each seed. One of twenty tests passes by chance. A mean
over levels hides what happens at single ones; the tables below have every level."""


def _gained(found: Gain | None) -> str:
    if found is None:
        return ""
    values = list(found.seeds)
    return f"{found.word}: {mean(values):+.2f}" + (f" ± {spread(values):.2f}" if len(values) > 1 else "")


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


def _nodes(results: Results) -> Iterable[str]:
    """The structured counterparts of sections IV and V."""
    measured = [
        (experiment, title, dataset)
        for experiment, title in (("classification_nodes", "Classifier"), ("decoder_nodes", "Decoder"))
        for dataset in DATASETS
        if has(results, experiment, dataset)
    ]
    if not measured:
        return
    yield "## Nodes instead of weights"
    yield _SETTINGS["nodes"]
    for experiment, title, dataset in measured:
        yield f"### {title}: {NAMES[dataset]}\n\n{_about(results, experiment, dataset)}"
        yield _levels(results, experiment, dataset)
        yield _endings(results, experiment, dataset)


_SETTINGS = {
    "classification": """\
Weights of the dense layers are selected by global magnitude. The networks retrain for one epoch with SGD, a learning
rate of 0.01 and batches of 64. As in the paper, the soft decay takes the whole epoch, so nothing is retrained after it.
Figures are the percentage of correct answers.""",
    "decoder": """\
Weights of the decoder are selected by global magnitude. Everything retrains for one epoch with AdamW (learning rate
1e-3, weight decay 1e-4) and batches of 128. The soft decay takes the whole epoch. Figures are the mean squared error
x 10^-3.""",
    "latent": """\
Latent nodes are selected by skeletonization, and pruned on both sides. The layers next to them retrain for five epochs
with AdamW and batches of 128; all other layers are frozen. The soft decay takes all five epochs. Figures are the mean
squared error x 10^-3.

Two more comparisons: in *everything trains*, no layer is frozen. *Small from the start* are networks of the reduced
size, trained from random weights for as many epochs as the others are retrained.""",
    "nodes": """\
The paper prunes single weights of classifiers and decoders. Here whole nodes are pruned in the same dense networks:
nodes of all dense layers of the classifier, or of the decoder, except the last. Retraining and decay are those of
sections IV and V.

Nodes are selected by `magnitude`, the paper's criterion: the norm of a node's incoming weights. As the weights are, all
nodes are in one ranking (`scope: global`). Since these norms grow with the number of inputs, each is divided by the
mean of its layer. Every layer keeps at least one node. Figures are the percentage of correct answers for classifiers,
and the mean squared error x 10^-3 for decoders.""",
}


def _about(results: Results, experiment: str, dataset: str) -> str:
    start = dense(results, experiment, dataset)
    network = _network(results, experiment, dataset)
    first = network["data"]["train"]
    images = f"the first {first:,} training images" if first else "all available training images"
    return (
        f"Dense: {_shown(start)} ({len(start)} seed{'s' if len(start) > 1 else ''}), trained for "
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
            _percent(level),
            *(_at(found, level) for found in lines.values()),
            *(_number(points.get(level)) for points in paper.values()),
        )
        for level in sorted({level for found in lines.values() for level in found})
    ]
    return _table(titles, rows)


def _endings(results: Results, experiment: str, dataset: str) -> str:
    """Soft pruning just before and just after the decayed weights are set to zero, by the end of the decay."""
    found = {
        (final, before): line(results, experiment, dataset, "soft", final, before=before)
        for final in FINALS
        for before in (True, False)
    }
    levels = sorted(set(found[0.5, True]))
    if not levels:
        return ""
    rows = [
        (_percent(level), f"{final:g}", _at(found[final, True], level), _at(found[final, False], level))
        for level in levels
        for final in FINALS
    ]
    return "The effect of the removal, by the factor at which the decay ends:\n\n" + _table(
        ("pruned", "decay ends at", "before removal", "after removal"), rows
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
Most often right: {best}. Least often right: {worst}. The paper names 1 and 7, and 3 and 8."""
    yield _wrapped(
        f"""\
Figure 3 shows the training images, and Table I may do so too. Its 10.4 % for hard pruning on MNIST is the share of
sevens among all 60,000 training images (6,265): a network that answers seven to everything would be right that often.
Of the 50,000 images used here {sevens:.2f} % are sevens, of the test images 10.28 %."""
    )


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
    yield _wrapped(
        f"""\
The paper does not give the length of the training, the batch size or the initial weights, and does not say whether
biases are pruned. We tried {len(found)} settings on MNIST, with one seed each. The table shows the nearest to the
paper's hard and retrained columns; *off by* is the mean difference from these six figures, in points."""
    )
    titles = ("start", "batch", "epochs", "biases", "dense", "off by")
    columns = (f"{method} {_percent(level)}" for method in ("hard", "retrained") for level in LEVELS)
    yield _table((*titles, *columns), rows)
    yield _nearest(found)


def _nearest(found: Sequence[Calibrated]) -> str:
    nearest = found[0]
    text = "\n\n".join(
        (
            _wrapped(
                f"""\
The nearest network was trained briefly: {nearest.epochs} epochs with batches of {nearest.batch_size}. On the training
images, its hard column is {" / ".join(_percents(nearest.hard_on_training))}."""
            ),
            """\
Hard pruning fails there because of the initial weights. No initial weight of the first layer exceeds 0.076, the square
root of 6 / (784 + 256). 7.9 % of all weights exceed it, and all of these are in later layers. Where training has moved
the weights little, a global threshold that keeps 5 % removes the whole first layer, and the rest of the network gives
the same answer for every image.""",
        )
    )
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
            f"Soft pruning of the nearest network that was also pruned softly ({start}):",
            _table(("decay ends at", "measured", *map(_percent, LEVELS), "off by"), rows),
            _wrapped(
                f"""\
The paper's soft column is nearest to a decay that ends at {final:g}, measured {when} removal: it is
{distances[final, when]:.1f} points off. The nearest column after removal is {complete:.1f} points off."""
            ),
        )
    )


def _limits(results: Results) -> str:
    limits = [
        """CIFAR-10 has 41,000 training and 10,000 test images here, not 50,000 and 10,000. Its autoencoders have one
seed.""",
        _convolutional(results),
        """The autoencoders were trained briefly (the number of epochs is above), and the paper's losses are lower than
those of the dense networks here. Compare the rise over the dense network, and soft with hard pruning.""",
        *_fewer_nodes(results),
        *_trained_elsewhere(results),
        """The learning rate is constant, since the paper names no schedule. The shipped recipes train the autoencoders
with a cosine, which reaches a lower loss.""",
    ]
    return "## What was reduced, and what is different\n\n" + "\n".join(_wrapped(f"- {one}") for one in limits)


def _fewer_nodes(results: Results) -> Iterable[str]:
    """Where nodes were pruned at fewer levels, with fewer seeds or on fewer data sets than weights."""
    for experiment, weights in (("classification_nodes", "classification"), ("decoder_nodes", "decoder")):
        for dataset in PAPER.datasets if any(has(results, experiment, one) for one in PAPER.datasets) else ():
            found = line(results, experiment, dataset, "soft", COMPLETE)
            seeds, of = (len(dense(results, name, dataset)) for name in (experiment, weights))
            where = f"{SUBJECTS[experiment].capitalize()} ({NAMES[dataset]})"
            if not found:
                yield f"{where} were not pruned."
            elif seeds < of:
                levels = ", ".join(map(_percent, found))
                yield f"{where} were pruned with {seeds} of {of} seeds, at {levels}."


def _trained_elsewhere(results: Results) -> Iterable[str]:
    """Dense networks that are trained again on another processor end at other losses."""
    dense = {cell["network"]: cell["result"] for cell in results["cells"] if cell["method"] == "dense"}
    apart: dict[str, float] = {}
    for cell in results["cells"]:
        result, trained = cell["result"], dense.get(cell["network"])
        if cell["method"] == "hard" and trained and result.get("cpu") != trained.get("cpu"):
            where = f"{SUBJECTS[cell['experiment']].capitalize()} ({NAMES[cell['dataset']]})"
            off = abs(result["before_removal"]["loss"] / trained["dense"]["loss"] - 1)
            apart[where] = max(off, apart.get(where, 0.0))
    for where, off in apart.items():
        yield f"""{where}: networks were trained again, with the same seeds, on another processor. Before pruning, their
losses differ by up to {100 * off:.1f} % from those of the dense networks above."""


def _convolutional(results: Results) -> str:
    if not has(results, "latent", "cifar10"):
        return "The convolutional autoencoder of section VI (figure 9) has not been run yet."
    network = _network(results, "latent", "cifar10")
    return f"""The convolutional autoencoder of section VI takes hours on a CPU. It was trained for
{network["train"]["epochs"]} epochs on the first {network["data"]["train"]:,} images, in bfloat16, and measured on
{network["data"]["test"]:,} images, in float32, with one seed and the paper's four levels. Its figures compare the
methods with each other, not with the paper's losses."""


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


def _percent(level: float) -> str:
    return f"{100 * level:g} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _percents(values: Iterable[float]) -> tuple[str, ...]:
    return tuple(f"{value:.1f}" for value in values)


def _wrapped(text: str) -> str:
    """A paragraph or an item of a list in lines of at most 120 characters."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(
        " ".join(text.split()), 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(titles)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows))
