"""Write a sensitivity or a search as files: results.json, a table for programs, the curves, and the recipe."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from compress.recipe import schema
from compress.recipe.loading import resolved_yaml
from compress.report import explored, plots
from compress.run.output import whole_folder
from compress.run_warnings import text_of
from compress.sweep.explore import figures
from compress.sweep_results import Search, Sensitivity

RECIPE = "recipe.yaml"

FILES = {
    "sensitivity": ("results.json", "results.csv", "sensitivity.svg", "sensitivity.png", RECIPE),
    "search": ("results.json", "results.csv", "front.svg", "front.png", "curve.svg", "curve.png", RECIPE),
}
"""All files that each of the two commands may write."""


def write_sensitivity(results: Sensitivity, recipe: schema.Recipe | None, folder: Path) -> list[str]:
    """Write the files to `folder`, all or none, and return their names.

    Without a recipe, an earlier run's recipe is removed, since it does not answer this run.
    """
    with whole_folder(folder, FILES["sensitivity"], "sensitivity") as draft:
        _write(results, draft, list(_points(results)), recipe, list(explored.of_sensitivity(results)))
        _draw(figures.sensitivity(results), "sensitivity", draft)
        return _names(draft, "sensitivity")


def write_search(results: Search, recipe: schema.Recipe | None, folder: Path) -> list[str]:
    """Like `write_sensitivity`, for a search."""
    with whole_folder(folder, FILES["search"], "search") as draft:
        _write(results, draft, list(_trials(results)), recipe, list(explored.of_search(results)))
        _draw(figures.front(results), "front", draft)
        if results["curve"]:
            _draw(figures.curve(results), "curve", draft)
        return _names(draft, "search")


def _names(folder: Path, of: str) -> list[str]:
    return [name for name in FILES[of] if (folder / name).exists()]


def _write(
    results: Sensitivity | Search,
    folder: Path,
    rows: Iterable[tuple[object, ...]],
    recipe: schema.Recipe | None,
    about: Iterable[str],
) -> None:
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8", newline="\n")
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    if recipe is not None:
        told = (f"warning: {text_of(found)}" for found in results.get("warnings", []))
        comment = "".join(f"# {' '.join(line.split())}\n" for line in (*about, *told))
        (folder / RECIPE).write_text(comment + resolved_yaml(recipe), encoding="utf-8", newline="\n")


def _draw(figure: Figure, name: str, folder: Path) -> None:
    for kind in ("svg", "png"):
        plots.save(figure, name, folder / f"{name}.{kind}")


def _points(results: Sensitivity) -> Iterable[tuple[object, ...]]:
    """A heading, and a row for every sparsity of every layer."""
    names = _quality(results)
    yield "layer", "size", "sparsity", "left", *names
    for layer in results["layers"]:
        for point in layer["curve"]:
            metric = point["metric"] or {}
            found = (metric.get(name) for name in names)
            yield layer["name"], layer["size"], point["sparsity"], point["left"], *found


def _trials(results: Search) -> Iterable[tuple[object, ...]]:
    """A heading, and a row for every trial."""
    stages = [f"level_{number}" for number in range(len(results["trials"][0]["levels"]) if results["trials"] else 0)]
    sizes = ("params", "nonzero", "macs", "latency")
    names = _quality(results)
    yield "trial", *stages, *names, *sizes, "holds", "front", "failed", "seconds", "key"
    for trial in results["trials"]:
        about = (trial["number"], *trial["levels"])
        kept = (trial.get("seconds"), trial.get("key"))
        if "failed" in trial:
            yield *about, *[None] * (len(names) + len(sizes)), trial["holds"], trial["front"], trial["failed"], *kept
            continue
        ratio = trial["latency"]["ratio"] if "latency" in trial else None
        quality = (trial["metric"].get(name) for name in names)
        size = (trial["params"], trial["nonzero"], trial["macs"], ratio)
        yield *about, *quality, *size, trial["holds"], trial["front"], None, *kept


def _quality(results: Sensitivity | Search) -> tuple[str, str]:
    """The loss, and what ranks; the accuracy, which may be empty, where the loss itself ranks."""
    name = results["metric"]["name"]
    return "loss", "accuracy" if name == "loss" else name
