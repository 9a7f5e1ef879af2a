"""The command from beginning to end: fair, resumable, and the same in every file."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from typer.testing import Result

from compress.errors import SweepError
from compress.files.marked import MARK
from compress.sweep.compare import document, running
from compress.sweep.compare.grid import plan
from compress.sweep.engines import Workers

Run = Callable[..., Result]
OPTIONS = ("--sparsity", ".5,.75", "--lr", "1e-3,1e-2", "--workers", 1)


@pytest.fixture(scope="session")
def compared(made_once: Callable[..., Path], recipe_text: str, trained: Path, run: Run) -> Path:
    """A folder with the recipe, `cells`, and in `out` what the command left; not to be changed."""
    # Weights rather than nodes, which are traced again for every cell.
    for old, new in (
        ("{nodes: latent}", '{weights: ["decoder.*"]}'),
        ("skeletonization", "magnitude"),
        ("adjacent", "all"),
    ):
        assert old in recipe_text
        recipe_text = recipe_text.replace(old, new)

    def fill(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(recipe_text, encoding="utf-8")
        names = ("--removal", "hard,{kind: soft, over: 4 steps}", "--criterion", "magnitude,random", "--seeds", 3)
        where = ("-o", folder / "out", "--cache", folder / "cells")
        result = run("compare", folder / "recipe.yaml", trained, *names, *OPTIONS, *where)
        (folder / "terminal.txt").write_text(result.stdout, encoding="utf-8")

    return made_once("compared", fill)


@pytest.fixture(scope="session")
def found(compared: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((compared / "out" / "results.json").read_text(encoding="utf-8"))
    return content


def test_every_cell_is_there(compared: Path, found: dict[str, Any]) -> None:
    assert sorted(path.name for path in (compared / "out").iterdir()) == sorted((MARK, *document.FILES))
    assert (len(found["rivals"]), len(found["cells"]), len(found["tuning"])) == (4, 4 * 2 * 3, 4 * 2 * 2)
    keys = {cell["key"] for part in ("dense", "tuning", "cells") for cell in found[part]}
    assert keys == {path.stem for path in (compared / "cells").glob("*.json")}
    assert {cell["seed"] for cell in found["tuning"]} == {0}
    assert {cell["steps"] for cell in found["cells"]} == {10}, "two epochs of five batches, whatever the rival"
    for cell in found["cells"]:
        assert cell["achieved"] == pytest.approx(cell["sparsity"], abs=0.001)
        assert cell["sparsity"] == cell["stage"]["sparsity"]
        assert cell["lr"] == cell["stage"]["retrain"]["lr"]
        assert cell["value"] == 1000 * cell["after_removal"]["loss"]


def test_the_learning_rate_is_the_best_on_the_held_out_images(found: dict[str, Any]) -> None:
    for level in found["levels"]:
        for rival, figures in level["rivals"].items():
            tried = {
                cell["after_removal"]["loss"]: cell["lr"]
                for cell in found["tuning"]
                if (cell["rival"], cell["sparsity"]) == (rival, level["sparsity"])
            }
            assert len(tried) == 2
            assert figures["lr"] == tried[min(tried)]
    assert {cell["lr"] for cell in found["cells"]} <= {0.001, 0.01}


def test_the_files_agree(compared: Path, found: dict[str, Any]) -> None:
    with (compared / "out" / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(found["cells"])
    for row, cell in zip(rows, found["cells"], strict=True):
        rival = next(rival for rival in found["rivals"] if rival["name"] == cell["rival"])
        assert (row["removal"], row["criterion"], row["scope"]) == (rival["removal"], rival["criterion"], "global")
        assert float(row["value"]) == cell["value"]
        assert float(row["before_removal"]) == 1000 * cell["before_removal"]["loss"]
        assert (float(row["sparsity"]), float(row["lr"]), int(row["seed"])) == (
            cell["sparsity"],
            cell["lr"],
            cell["seed"],
        )
        assert row["key"] == cell["key"]
    table = (compared / "out" / "table.md").read_text(encoding="utf-8")
    terminal = (compared / "terminal.txt").read_text(encoding="utf-8")
    for level in found["levels"]:
        for name, figures in level["rivals"].items():
            values = [
                float(row["value"])
                for row in rows
                if (", ".join((row["removal"], row["criterion"], row["scope"])), float(row["sparsity"]))
                == (name, level["sparsity"])
            ]
            assert len(values) == 3
            assert (figures["mean"], figures["sd"]) == pytest.approx((fmean(values), stdev(values)))
            mean, deviation = f"{figures['mean']:.2f}", f"± {figures['sd']:.2f}"
            assert f"{mean} {deviation}" in table
            assert mean in terminal
            assert deviation in terminal
    marked = sum(level["best"] is not None for level in found["levels"])
    assert len(re.findall(r"^\|.*\*\* \\\*", table, re.MULTILINE)) == marked
    svg = (compared / "out" / "curve.svg").read_text(encoding="utf-8")
    assert svg.startswith("<?xml")


def test_it_goes_on_where_it_was(compared: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    """Finished cells are neither run again nor written again; what is new is."""
    before = {path.name: path.stat().st_mtime_ns for path in (compared / "cells").glob("*.json")}
    cache = tmp_path / "cells"
    cache.mkdir()
    for path in (compared / "cells").iterdir():  # its mark too
        (cache / path.name).write_bytes(path.read_bytes())
    gone = sorted(before)[0]
    (cache / gone).unlink()
    written = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.json")}
    names = ("--removal", "hard,{kind: soft, over: 4 steps}", "--criterion", "magnitude,random", "--seeds", 3)
    where = ("-o", tmp_path / "out", "--cache", cache, "--json")
    result = run("compare", compared / "recipe.yaml", trained, *names, *OPTIONS, *where)
    now = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.json")}
    assert now.keys() == before.keys()
    assert {name for name in now if now[name] != written.get(name)} == {gone}
    again = json.loads(result.stdout)
    first = json.loads((compared / "out" / "results.json").read_text(encoding="utf-8"))
    assert again == json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert again["levels"] == first["levels"]

    fewer = run("compare", compared / "recipe.yaml", trained, *names[:-1], 2, *OPTIONS, *where)
    assert {path.name for path in cache.glob("*.json")} == before.keys(), "seeds of another number share their cells"
    assert len(json.loads(fewer.stdout)["cells"]) == 4 * 2 * 2
    assert all(level["best"] is None for level in json.loads(fewer.stdout)["levels"])


def test_what_diverges_while_tuning_is_not_chosen(recipe: Path, trained: Path, tmp_path: Path) -> None:
    grid = plan(recipe, [trained], rates=["1e38", "1e-3"], seeds=1)
    results = running.compare(grid, tmp_path, tmp_path / "cells")
    assert ["diverged" in cell for cell in results["tuning"]] == [True, False]
    assert [cell["lr"] for cell in results["cells"]] == [0.001]
    with pytest.raises(SweepError, match="every learning rate diverged"):
        running.compare(plan(recipe, [trained], rates=["1e38", "2e38"], seeds=1), tmp_path, tmp_path / "cells")


def test_one_that_diverges_in_the_end_is_told_in_the_table(
    recipe: Path, trained: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    where = ("-o", out, "--cache", tmp_path / "cells", "--workers", 1)
    result = run("compare", recipe, trained, "--lr", "1e38", "--removal", "hard", "--seeds", 3, *where)
    assert "3 diverged" in result.stdout
    assert "3 diverged" in (out / "table.md").read_text(encoding="utf-8")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["tuning"] == []
    assert results["levels"][0]["best"] is None
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["value"] for row in csv.DictReader(stream)} == {""}


def test_what_does_not_fit_the_network_is_told_before_anything_runs(
    recipe: Path, trained: Path, tmp_path: Path, run: Run
) -> None:
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1)
    change = ("--set", "stages.0.target={nodes: latnt}")
    result = run("compare", recipe, trained, "--removal", "hard,soft", *change, *where, code=2)
    assert "latnt" in result.stderr
    # 100 images give ten steps, 90 images give ten as well, and 11 are too many for either.
    long = run("compare", recipe, trained, "--removal", "{kind: soft, over: 11 steps}", *where, code=2)
    assert "soft (over 11 steps), skeletonization on 90% of the training samples" in long.stderr
    assert not (tmp_path / "cells").exists()


@pytest.mark.extended
def test_more_workers_come_to_the_same(compared: Path, found: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    grid = plan(compared / "recipe.yaml", [trained], removals=["hard"], criteria=["random"], rates=["1e-3"], seeds=2)
    alone, together = (
        running.compare(grid, tmp_path, tmp_path / str(workers), workers=Workers(workers)) for workers in (1, 2)
    )
    assert [cell["value"] for cell in alone["cells"]] == [cell["value"] for cell in together["cells"]]
    assert [cell["key"] for cell in alone["cells"]] == [cell["key"] for cell in together["cells"]]


@pytest.mark.extended
def test_the_same_shape_from_scratch(recipe: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1, "--json")
    names = ("--removal", "hard", "--rival", "scratch", "--lr", "1e-3,2e-3", "--seeds", 1)
    result = run("compare", recipe, trained, *names, *where)
    found = json.loads(result.stdout)
    assert [rival.get("scratch") for rival in found["rivals"]] == [None, "total", "retraining"]
    pruned, total, retraining = found["cells"]
    assert retraining["steps"] == pruned["steps"] == 10
    assert total["steps"] > 10
    assert total["lr"] == pruned["lr"], "the long training has the rate of the retraining"
    assert {cell["rival"] for cell in found["tuning"]} == {pruned["rival"], retraining["rival"]}
    assert total["value"] == 1000 * total["after_removal"]["loss"] != retraining["value"]
    assert "before_removal" not in total
    cells = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    again = json.loads(run("compare", recipe, trained, *names, *where).stdout)
    assert again == found
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")} == cells


def test_a_shape_that_stays_as_it_was_has_no_rival(recipe: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    changes = ("stages.0.target={weights: decoder.*}", "stages.0.criterion=magnitude", "stages.0.retrain.trainable=all")
    settings = [word for change in (*changes, "stages.0.sparsity=0.1") for word in ("--set", change)]
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1)
    result = run("compare", recipe, trained, "--rival", "scratch", *settings, *where, code=2)
    assert "--rival scratch: nothing can be cut out of the pruned network" in result.stderr
    assert not (tmp_path / "cells").exists()
