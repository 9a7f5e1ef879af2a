"""A sensitivity or a search as files: results.json, a table for programs, the curves, and the recipe it comes to."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from compress.recipe import schema
from compress.recipe.loading import resolved_yaml
from compress.report import explored, plots
from compress.run.output import whole_folder
from compress.sweep.explore import figures

Results = Mapping[str, Any]

RECIPE = "recipe.yaml"

FILES = {
    "sensitivity": ("results.json", "results.csv", "sensitivity.svg", "sensitivity.png", RECIPE),
    "search": ("results.json", "results.csv", "front.svg", "front.png", "curve.svg", "curve.png", RECIPE),
}
"""All that each of the two commands may write."""


def write_sensitivity(results: Results, recipe: schema.Recipe | None, folder: Path) -> list[str]:
    """Write the files into `folder`, once all of them could be written; their names.

    Without a recipe none is left there: one of an earlier run is no answer to this one.
    """
    with whole_folder(folder, FILES["sensitivity"], "sensitivity") as draft:
        _write(results, draft, _points(results), recipe, explored.of_sensitivity(results))
        _draw(figures.sensitivity(results), "sensitivity", draft)
        return _names(draft, "sensitivity")


def write_search(results: Results, recipe: schema.Recipe | None, folder: Path) -> list[str]:
    """As `write_sensitivity`, of a search."""
    with whole_folder(folder, FILES["search"], "search") as draft:
        _write(results, draft, _trials(results), recipe, explored.of_search(results))
        _draw(figures.front(results), "front", draft)
        if results["curve"]:
            _draw(figures.curve(results), "curve", draft)
        return _names(draft, "search")


def _names(folder: Path, of: str) -> list[str]:
    return [name for name in FILES[of] if (folder / name).exists()]


def _write(
    results: Results,
    folder: Path,
    rows: Iterable[tuple[Any, ...]],
    recipe: schema.Recipe | None,
    about: Iterable[str],
) -> None:
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8", newline="\n")
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    if recipe is not None:
        comment = "".join(f"# {line}\n" for line in about)
        (folder / RECIPE).write_text(comment + resolved_yaml(recipe), encoding="utf-8", newline="\n")


def _draw(figure: Figure, name: str, folder: Path) -> None:
    for kind in ("svg", "png"):
        plots.save(figure, name, folder / f"{name}.{kind}")


def _points(results: Results) -> Iterable[tuple[Any, ...]]:
    """A heading, and a row for every sparsity of every layer."""
    yield "layer", "size", "sparsity", "left", "loss", "accuracy"
    for layer in results["layers"]:
        for point in layer["curve"]:
            metric = point["metric"] or {}
            found = (metric.get(name) for name in ("loss", "accuracy"))
            yield layer["name"], layer["size"], point["sparsity"], point["left"], *found


def _trials(results: Results) -> Iterable[tuple[Any, ...]]:
    """A heading, and a row for every trial."""
    stages = [f"level_{number}" for number in range(len(results["trials"][0]["levels"]) if results["trials"] else 0)]
    columns = ("params", "nonzero", "macs")
    yield "trial", *stages, "loss", "accuracy", *columns, "latency", "holds", "front", "failed", "seconds", "key"
    for trial in results["trials"]:
        metric = trial.get("metric", {})
        yield (
            trial["number"],
            *trial["levels"],
            *(metric.get(name) for name in ("loss", "accuracy")),
            *(trial.get(name) for name in columns),
            trial.get("latency", {}).get("ratio"),
            *(trial.get(name) for name in ("holds", "front", "failed", "seconds", "key")),
        )
