"""Write a comparison as files: results.json, a table for people, one for programs, and the curves."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from compress.ranking import read
from compress.report import plots, tables
from compress.report.tables import SCRATCH
from compress.run.output import whole_folder
from compress.run_warnings import text_of
from compress.sweep.compare import figures
from compress.sweep.compare.summary import NOISE, scratch_wins
from compress.sweep_results import Comparison
from compress.train.metrics import headline
from compress.wording import count_of

FILES = ("results.json", "table.md", "results.csv", "curve.svg", "curve.png")
COLUMNS = (
    *tables.WAYS,
    "sparsity",
    "seed",
    "lr",
    "value",
    "before_removal",
    "steps",
    "seconds",
    "key",
)


def write_all(results: Comparison, folder: Path) -> None:
    """Write `FILES` to `folder`, all or none."""
    with whole_folder(folder, FILES, "compare") as draft:
        text = json.dumps(results, indent=1, allow_nan=False) + "\n"
        (draft / "results.json").write_text(text, encoding="utf-8", newline="\n")
        (draft / "table.md").write_text(markdown(results), encoding="utf-8", newline="\n")
        with (draft / "results.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(rows(results))
        figure = figures.curves(results)
        for name in ("curve.svg", "curve.png"):
            plots.save(figure, "curve", draft / name)


def markdown(results: Comparison) -> str:
    """The table, the chosen learning rates, and how to read them."""
    levels = [tables.level(results, value) for value in results["sparsities"]]
    metric, dense = tables.metric_of(results), tables.mean_of_dense(results)
    values = [
        [f"**{cell.removesuffix(' *')}** \\*" if cell.endswith("*") else cell for cell in cells]
        for _, cells in tables.compared(results)
    ]
    rates = [
        ["-" if (rate := level["rivals"][rival["name"]]["lr"]) is None else f"{rate:g}" for level in results["levels"]]
        for rival in results["rivals"]
    ]
    return "\n".join(
        [
            f"# {results['recipe']['name']}: test {metric.heading} after exact removal\n",
            f"Mean ± sample standard deviation; dense {metric.figure(dense)}.\n",
            *(f"Warning: {text_of(found)}.\n" for found in results.get("warnings", [])),
            _grid(results, levels, values),
            *(f"- {line.replace('*', chr(92) + '*', 1)}" for line in closing(results)),
            "\n## Learning rates\n",
            _grid(results, levels, rates),
        ]
    )


def _grid(results: Comparison, levels: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table with a row for every rival and a column for every sparsity."""
    ways = [[rival[way] for way in tables.WAYS] for rival in results["rivals"]]
    lines = [
        [*tables.WAYS, *levels],
        ["---"] * len(tables.WAYS) + ["---:"] * len(levels),
        *([*way, *row] for way, row in zip(ways, cells, strict=True)),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def rows(results: Comparison) -> Iterable[tuple[object, ...]]:
    """A heading, and a row for every cell on the test samples; diverged runs have no figures."""
    yield COLUMNS
    rivals = {rival["name"]: tuple(rival[way] for way in tables.WAYS) for rival in results["rivals"]}
    for cell in results["cells"]:
        before = cell.get("before_removal")
        yield (
            *rivals[cell["rival"]],
            *(cell["sparsity"], cell["seed"], cell["lr"], cell["value"]),
            None if before is None else headline(before, read(results["metric"])),
            *(cell.get("steps"), cell.get("seconds"), cell.get("key")),
        )


def closing(results: Comparison) -> Iterable[str]:
    """How to read the table, and its weaknesses."""
    seeds = len(results["seeds"])
    if seeds < 3:
        yield f"{count_of(seeds, 'seed')}: too few to tell a difference from noise, so none is marked"
    else:
        yield f"* beats the second-best beyond the noise: paired t-test over {count_of(seeds, 'seed')}, p < {NOISE}"
        yield "p of the best against the second-best: " + ", ".join(
            f"{100 * level['sparsity']:.10g} %: " + ("-" if level["p"] is None else f"{level['p']:.2g}")
            for level in results["levels"]
        )
    yield from _better_from_scratch(results)
    yield from _at_the_edge(results)


def _better_from_scratch(results: Comparison) -> Iterable[str]:
    """At which levels the best way to prune loses against training its shape, beyond the noise."""
    for length in SCRATCH:
        lost = [level["sparsity"] for level in results["levels"] if scratch_wins(results, level, length)]
        if lost:
            levels = ", ".join(tables.level(results, one) for one in lost)
            yield (
                f"warning: at {levels} the same shape from scratch, as many epochs {SCRATCH[length]}, beats pruning "
                "beyond the noise: train the small network instead, prune less, or retrain for longer"
            )


def _at_the_edge(results: Comparison) -> Iterable[str]:
    """A note if the best learning rate may be outside the tried ones."""
    if not results["tuning"]:
        return
    tried = [rate for rate in results["rates"] if rate is not None]
    ends = (min(tried), max(tried))
    chosen = [level["rivals"][rival["name"]]["lr"] for level in results["levels"] for rival in results["rivals"]]
    low, high = (sum(rate == end for rate in chosen) for end in ends)
    if low or high:
        yield (
            f"of {len(chosen)} chosen learning rates {low} are the lowest tried ({ends[0]:g}) and {high} the highest "
            f"({ends[1]:g}); a wider --lr may do better"
        )
