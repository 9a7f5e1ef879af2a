"""docs/paper.md from results.json: every table and figure beside what the paper prints, and what it says about "
"the claims."""

from collections.abc import Iterable, Mapping, Sequence

from compress.paper import printed
from compress.paper.figures import confusion, has, names
from compress.paper.findings import (
    COMPLETE,
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

# (title, method, final, before removal)
COLUMNS: tuple[tuple[str, str, float | None, bool], ...] = (
    ("hard", "hard", None, False),
    ("retrained", "retrained", None, False),
    ("soft", "soft", COMPLETE, False),
    ("everything retrains: hard", "retrained_all", None, False),
    ("soft", "soft_all", COMPLETE, False),
    ("small from the start", "small", None, False),
)
FINALS = (COMPLETE, 1e-2, 0.1, 0.5)


def page(results: Results, folder: str) -> str:
    """The whole page; `folder`, beside it, holds the figures."""
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
        _limits(),
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
    "classification": "Global magnitude over the dense layers' weights, one epoch of SGD with a learning rate "
    "of 0.01 and batches of 64; "
    "the soft decay takes the whole epoch, so that nothing is retrained after it, as in the paper. Percent correct.",
    "decoder": "Global magnitude over the decoder's weights, one epoch of AdamW (1e-3, weight decay 1e-4), "
    "batches of 128, everything "
    "trainable; the soft decay takes the whole epoch. Mean squared error x 10^-3.",
    "latent": "Skeletonization, both sides of a node pruned, five epochs of AdamW on the layers next to the "
    "latent nodes, everything else "
    "frozen, batches of 128; the soft decay takes all five. Mean squared error x 10^-3. Two more lines: "
    "everything trainable, and "
    "networks of the size that is left, trained from the start for as many epochs as the others are retrained.",
}


def _about(results: Results, experiment: str, dataset: str) -> str:
    start = dense(results, experiment, dataset)
    cell = next(
        cell
        for cell in results["cells"]
        if (cell["experiment"], cell["dataset"], cell["method"]) == (experiment, dataset, "dense")
    )
    network = results["networks"][cell["network"]]
    first = network["data"]["train"]
    images = f"the first {first:,} training images" if first else "all training images that are there"
    return (
        f"Dense: {_shown(start)} ({len(start)} seed{'s' if len(start) > 1 else ''}), after "
        f"{network['train']['epochs']} epochs on {images}."
    )


def _levels(results: Results, experiment: str, dataset: str) -> str:
    lines = {column: line(results, experiment, dataset, *column[1:3], before=column[3]) for column in COLUMNS}
    lines = {column: found for column, found in lines.items() if found}
    paper = _printed(experiment, dataset)
    titles = ["pruned", *(column[0] for column in lines), *(f"paper: {method}" for method in paper)]
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
    """Soft pruning just before and just after what is left of the weights is cut, by where the decay ends."""
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
    best, worst = (
        sorted(recall, key=lambda digit: -recall[digit])[:2],
        sorted(recall, key=lambda digit: recall[digit])[:2],
    )
    share = 100 * sum(counts[7]) / sum(map(sum, counts))
    yield "### The confusion matrix (figure 3)"
    yield _figure(drawn, "fig3", "Figure 3 of the paper: the 95 % soft-pruned MNIST classifier on its training images.")
    yield (
        f"Most often right: {best[0]} and {best[1]} ({recall[best[0]]:.0f} and {recall[best[1]]:.0f} %); least "
        f"often: "
        f"{worst[0]} and {worst[1]} ({recall[worst[0]]:.0f} and {recall[worst[1]]:.0f} %). The paper names 1 "
        f"and 7, and 3 and 8.\n\n"
        f"Figure 3 is of the training images, and Table I may be too: its 10.4 % for hard pruning on MNIST is "
        f"the share of sevens "
        f"among all 60,000 training images (6,265), while {share:.2f} % of the 50,000 used here and 10.28 % of "
        f"the test images are "
        f"sevens. A network that always says the same digit would be right so often."
    )


def _calibration(results: Results) -> Iterable[str]:
    found = calibrated(results)
    if not found:
        return
    wanted = printed.TABLE_I["mnist"]
    rows = [
        (
            "the paper",
            "",
            "",
            "",
            "",
            *_percents(wanted["hard"].values()),
            *_percents(wanted["retrained"].values()),
            "",
        ),
        *(
            (
                one.start,
                str(one.batch_size),
                str(one.epochs),
                "pruned" if one.bias else "kept",
                f"{one.dense:.1f}",
                *_percents(one.hard),
                *_percents(one.retrained),
                f"{one.distance:.1f}",
            )
            for one in found[:8]
        ),
    ]
    yield "### Which network the paper may have pruned (Table I)"
    yield (
        f"The paper names neither the length of the training, nor the batch size, nor the initial weights, nor "
        f"what becomes of biases. "
        f"{len(found)} settings were tried on MNIST; these come nearest to its hard columns (mean difference in "
        f"points, last column)."
    )
    titles = ("start", "batch", "epochs", "biases", "dense")
    names = tuple(f"{method} {level}" for method in ("hard", "retrained") for level in ("90 %", "95 %", "97 %"))
    yield _table((*titles, *names, "off by"), rows)
    yield _nearest(found)


def _nearest(found: Sequence[Calibrated]) -> str:
    nearest = found[0]
    text = (
        f"The nearest is a network that was trained briefly: {nearest.epochs} "
        f"epoch{'s' if nearest.epochs > 1 else ''}, batches of "
        f"{nearest.batch_size}. Its larger layers still hold their small initial weights, global magnitude "
        f"takes nearly the whole first "
        f"layer, and what is left answers every image alike. Biases decide little: kept or pruned, the same "
        f"rows are near."
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
            f"Soft pruning of the nearest such network ({start}), by where the decay ends:",
            _table(("the decay ends at", "", "90 %", "95 %", "97 %", "off by"), rows),
            (
                f"The paper's soft column is nearest to a decay that ends at {final:g}, measured {when} removal: "
                f"{distances[final, when]:.1f} points off. The nearest after removal is {complete:.1f} points off."
            ),
        )
    )


def _limits() -> str:
    return """## What was reduced, and what is different

- CIFAR-10 has 41,000 training and 10,000 test images here, not 50,000 and 10,000.
- The convolutional autoencoder of section VI costs hours on a CPU: it was trained for 8 epochs on the first 2,000
  images and measured on 1,000, in bfloat16 while training and float32 while measuring, with one seed and the
  paper's four levels. Its figures compare the methods with each other and not with the paper's losses.
- The autoencoders were trained briefly (the tables say how long), and the paper's own losses are lower than those of
  the dense networks here. What is compared is the rise over the dense network, and soft with hard.
- The two autoencoders for CIFAR-10 have one seed.
- The learning rate is constant, as the paper suggests; the shipped recipes train the dense network with a cosine and do
  better."""


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
