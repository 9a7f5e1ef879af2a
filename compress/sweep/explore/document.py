"""A sensitivity or a search as files: results.json, a table for programs, the curves, and the recipe it comes to."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from compress.files.atomic import atomic
from compress.recipe import schema
from compress.recipe.loading import resolved_yaml
from compress.report import explored, plots
from compress.sweep.explore import figures
from compress.sweep_results import Search, Sensitivity

RECIPE = "recipe.yaml"


def write_sensitivity(results: Sensitivity, recipe: schema.Recipe | None, folder: Path) -> list[str]:
    """Write the files into `folder`, each whole or not at all; their names. Without a recipe none is left there."""
    _write(results, folder, list(_points(results)), recipe, list(explored.of_sensitivity(results)))
    _draw(figures.sensitivity(results), "sensitivity", folder)
    return ["results.json", "results.csv", "sensitivity.svg", "sensitivity.png", *([RECIPE] if recipe else [])]


def write_search(results: Search, recipe: schema.Recipe | None, folder: Path) -> list[str]:
    """Write the files into `folder`, each whole or not at all; their names. Without a recipe none is left there."""
    _write(results, folder, list(_trials(results)), recipe, list(explored.of_search(results)))
    names = ["front"]
    _draw(figures.front(results), "front", folder)
    if results["curve"]:
        names.append("curve")
        _draw(figures.curve(results), "curve", folder)
    drawn = [f"{name}.{kind}" for name in names for kind in ("svg", "png")]
    return ["results.json", "results.csv", *drawn, *([RECIPE] if recipe else [])]


def _write(
    results: Sensitivity | Search,
    folder: Path,
    rows: Iterable[tuple[object, ...]],
    recipe: schema.Recipe | None,
    about: Iterable[str],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "results.json") as path:
        path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8", newline="\n")
    with atomic(folder / "results.csv") as path, path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    if recipe is None:
        (folder / RECIPE).unlink(missing_ok=True)  # of an earlier run: it is no answer to this one
        return
    comment = "".join(f"# {line}\n" for line in about)
    with atomic(folder / RECIPE) as path:
        path.write_text(comment + resolved_yaml(recipe), encoding="utf-8", newline="\n")


def _draw(figure: Figure, name: str, folder: Path) -> None:
    for kind in ("svg", "png"):
        with atomic(folder / f"{name}.{kind}") as path:
            plots.save(figure, name, path)


def _points(results: Sensitivity) -> Iterable[tuple[object, ...]]:
    """A heading, and a row for every sparsity of every layer."""
    yield "layer", "size", "sparsity", "left", "loss", "accuracy"
    for layer in results["layers"]:
        for point in layer["curve"]:
            metric = point["metric"] or {}
            found = (metric.get(name) for name in ("loss", "accuracy"))
            yield layer["name"], layer["size"], point["sparsity"], point["left"], *found


def _trials(results: Search) -> Iterable[tuple[object, ...]]:
    """A heading, and a row for every trial."""
    stages = [f"level_{number}" for number in range(len(results["trials"][0]["levels"]) if results["trials"] else 0)]
    sizes = ("params", "nonzero", "macs", "latency")
    yield "trial", *stages, "loss", "accuracy", *sizes, "holds", "front", "failed", "seconds", "key"
    for trial in results["trials"]:
        about = (trial["number"], *trial["levels"])
        kept = (trial.get("seconds"), trial.get("key"))
        if "failed" in trial:
            yield *about, *[None] * (2 + len(sizes)), trial["holds"], trial["front"], trial["failed"], *kept
            continue
        ratio = trial["latency"]["ratio"] if "latency" in trial else None
        quality = (trial["metric"].get(name) for name in ("loss", "accuracy"))
        size = (trial["params"], trial["nonzero"], trial["macs"], ratio)
        yield *about, *quality, *size, trial["holds"], trial["front"], None, *kept
