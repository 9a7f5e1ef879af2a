"""A comparison as files: results.json, a table for people, one for programs, and the curves."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compress.checkpoint import atomic
from compress.compare.summary import NOISE, mean
from compress.metrics import headline
from compress.report import tables

Results = Mapping[str, Any]

FILES = ("results.json", "table.md", "results.csv")
COLUMNS = (
    "removal",
    "criterion",
    "scope",
    "sparsity",
    "seed",
    "lr",
    "value",
    "before_removal",
    "steps",
    "seconds",
    "key",
)


def write_all(results: Results, folder: Path) -> None:
    """Write `FILES` into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "results.json") as path:
        path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with atomic(folder / "table.md") as path:
        path.write_text(markdown(results), encoding="utf-8")
    with atomic(folder / "results.csv") as path, path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows(results))


def markdown(results: Results) -> str:
    """The table, with what a reader needs to know below it."""
    levels = [f"{100 * sparsity:.10g} %" for sparsity in results["sparsities"]]
    lines = [["removal", "criterion", "scope", *levels], ["---"] * 3 + ["---:"] * len(levels)]
    for rival, cells in tables.compared(results):
        marked = [f"**{cell}**" if cell.endswith("*") else cell for cell in cells]
        lines.append([rival["removal"], rival["criterion"], rival["scope"], *marked])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([table, "", *(f"{line}  " for line in closing(results))]) + "\n"


def rows(results: Results) -> Iterable[tuple[Any, ...]]:
    """A heading, and a row for every cell on the test images; what diverged has no figures."""
    yield COLUMNS
    rivals = {rival["name"]: (rival["removal"], rival["criterion"], rival["scope"]) for rival in results["rivals"]}
    for cell in results["cells"]:
        before = cell.get("before_removal")
        yield (
            *rivals[cell["rival"]],
            *(cell[name] for name in ("sparsity", "seed", "lr", "value")),
            None if before is None else headline(before),
            *(cell.get(name) for name in ("steps", "seconds", "key")),
        )


def closing(results: Results) -> Iterable[str]:
    """How to read the table, and what is wrong with it."""
    name, unit = results["metric"]["name"], results["metric"]["unit"]
    dense = mean([found["value"] for found in results["dense"]])
    yield f"test {name} ({unit}) after exact removal, mean ± sample standard deviation; dense {dense:.2f}"
    seeds = len(results["seeds"])
    if seeds < 3:
        yield f"{seeds} seed{'s'[: seeds > 1]}: too few to tell a difference from noise, so none is marked"
    else:
        yield f"* beats the second-best beyond the noise: paired t-test over {seeds} seeds, p < {NOISE}"
    yield from _at_the_edge(results)


def _at_the_edge(results: Results) -> Iterable[str]:
    """That the best learning rate may lie outside of those that were tried."""
    if not results["tuning"]:
        return
    ends = (min(results["rates"]), max(results["rates"]))
    chosen = [level["rivals"][rival["name"]]["lr"] for level in results["levels"] for rival in results["rivals"]]
    low, high = (sum(rate == end for rate in chosen) for end in ends)
    if low or high:
        yield (
            f"of {len(chosen)} chosen learning rates {low} are the lowest tried ({ends[0]:g}) and {high} the highest "
            f"({ends[1]:g}); a wider --lr may do better"
        )
