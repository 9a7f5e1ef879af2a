"""The command from beginning to end: against trying everything, interrupted, and with recipes that run."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from compress.recipe.loading import load_recipe
from compress.run.output import added, begin
from compress.sweep.cell_store import Cells
from compress.sweep.cells import Basis
from compress.sweep.engines import Workers
from compress.sweep.explore import levels, search, trials
from compress.sweep.explore.bounds import parse
from compress.sweep.explore.trials import Trials, Wanted
from compress.sweep.trained import Trained

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory, recipe_text: str, trained: Path) -> Path:
    """A cache with the trials of all sizes of the latent space; not to be changed.

    Axes rather than nodes, and gently retrained: the loss then rises with each that goes.
    """
    folder = tmp_path_factory.mktemp("search")
    text = recipe_text.replace("optimizer: adamw, lr: 1e-3, trainable: adjacent", "optimizer: adamw, lr: 1e-6")
    assert text != recipe_text
    (folder / "recipe.yaml").write_text(text.replace("skeletonization", "principal_axes"), encoding="utf-8")
    everything(folder / "recipe.yaml", trained, folder / "cells")
    return folder / "cells"


def everything(recipe: Path, trained: Path, cache: Path) -> Trials:
    basis = Basis(load_recipe(recipe), recipe.parent, "cpu")
    trials = Trials(Trained.of(trained), basis, Wanted((parse("loss", "1x"),), "smallest"), Cells(cache))
    trials.run([(count / 8,) for count in range(7, 0, -1)], 7)
    return trials


@pytest.fixture
def own(cells: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(recipe, cache): the test's own copies."""
    cache = tmp_path / "cells"
    cache.mkdir()
    for path in cells.iterdir():
        (cache / path.name).write_bytes(path.read_bytes())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((cells.parent / "recipe.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return recipe, cache


def searched(run: Run, recipe: Path, trained: Path, cache: Path, *options: object, code: int = 0) -> dict[str, Any]:
    where = ("-o", recipe.parent / "out", "--cache", cache, "--json")
    workers = () if "--workers" in options else ("--workers", 1)
    found: dict[str, Any] = json.loads(run("search", recipe, trained, *options, *workers, *where, code=code).stdout)
    return found


@pytest.mark.extended
def test_the_smallest_within_a_loss_is_what_trying_everything_finds(
    own: tuple[Path, Path], trained: Path, run: Run
) -> None:
    recipe, cache = own
    trials = everything(recipe, trained, cache)
    losses = {left: result["metric"]["loss"] for (left,), result in trials.found.items()}
    before = {path.name: path.stat().st_mtime_ns for path in cache.glob("[!.]*")}
    for wanted in (1 / 8, 2 / 8, 3 / 8):
        found = searched(
            run, recipe, trained, cache, "--max-loss", f"{losses[wanted] + 1e-9:.12f}", "--set", "name=other"
        )
        within = [left for left, loss in losses.items() if loss <= losses[wanted] + 1e-9]
        assert all((left in within) == (left >= wanted) for left in losses), "else there is nothing to bisect"
        assert found["winner"]["levels"] == [1 - min(within)]
        assert len(found["trials"]) <= 3, "of 7"
    written = [name for name, when in before.items() if (cache / name).stat().st_mtime_ns != when]
    assert not written, "what was there was taken"


def test_the_best_within_a_size_is_the_largest_that_fits(own: tuple[Path, Path], trained: Path, run: Run) -> None:
    recipe, cache = own
    trials = everything(recipe, trained, cache)
    sizes = {left: result["params"] for (left,), result in trials.found.items()}
    found = searched(run, recipe, trained, cache, "--max-params", sizes[0.5] + 1)
    assert found["winner"]["levels"] == [0.5]
    assert found["winner"]["params"] == sizes[0.5]
    assert found["goal"] == "best"


def test_the_front_and_the_files(own: tuple[Path, Path], trained: Path, run: Run) -> None:
    recipe, cache = own
    found = searched(run, recipe, trained, cache, "--max-loss", "2x")
    done = found["trials"]
    for trial in done:
        beaten = any(
            (other["params"], other["value"]) != (trial["params"], trial["value"])
            and other["params"] <= trial["params"]
            and other["value"] <= trial["value"]
            for other in done
        )
        assert trial["front"] is not beaten
        assert trial["holds"] == (trial["metric"]["loss"] <= found["bounds"][0]["limit"])
    assert found["bounds"][0]["limit"] == 2 * found["dense"]["metric"]["loss"]
    out = recipe.parent / "out"
    assert {path.name for path in out.glob("[!.]*")} == {
        *("results.json", "results.csv", "recipe.yaml"),
        *("front.svg", "front.png", "curve.svg", "curve.png"),
    }
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == found
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(float(row["level_0"]), int(row["params"]), float(row["loss"])) for row in rows] == [
        (trial["levels"][0], trial["params"], trial["metric"]["loss"]) for trial in done
    ]


def test_the_winner_runs_and_keeps_its_promise(own: tuple[Path, Path], trained: Path, run: Run) -> None:
    recipe, cache = own
    winner = searched(run, recipe, trained, cache, "--max-loss", "2x")["winner"]
    out = recipe.parent / "applied"
    results = json.loads(run("apply", recipe.parent / "out" / "recipe.yaml", trained, "-o", out, "--json").stdout)
    slim = results["models"]["slim"]
    assert {key: slim[key] for key in ("params", "nonzero", "macs")} == {
        key: winner[key] for key in ("params", "nonzero", "macs")
    }
    assert slim["metric"]["loss"] == pytest.approx(winner["test"]["loss"], rel=1e-4)
    assert results["models"]["dense"]["metric"]["loss"] == pytest.approx(winner["dense_test"]["loss"], rel=1e-4)


@pytest.mark.extended
def test_an_interrupted_search_goes_on_where_it_was(
    own: tuple[Path, Path], trained: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, _ = own
    cache = tmp_path / "new"
    original, count = trials.Trial.run, 0

    def interrupted(self: trials.Trial, basis: Basis) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == 4:  # the dense network on held-out and on test images, a trial, and then this
            raise KeyboardInterrupt
        return original(self, basis)

    where = ("-o", tmp_path / "out", "--cache", cache, "--workers", 1)
    with monkeypatch.context() as patched:
        patched.setattr(trials.Trial, "run", interrupted)
        result = run("search", recipe, trained, "--max-loss", "2x", *where, code=130)
    assert f"interrupted: finished trials are kept in {cache}" in result.stderr
    kept = {path.name: path.stat().st_mtime_ns for path in cache.glob("[!.]*")}
    assert len(kept) == 3
    whole = searched(run, recipe, trained, cache, "--max-loss", "2x")
    assert all((cache / name).stat().st_mtime_ns == when for name, when in kept.items())
    assert whole["trials"][0]["key"] in {name.removesuffix(".json") for name in kept}
    with monkeypatch.context() as patched:
        patched.setattr(trials.Trial, "run", None)  # none is run any more
        assert searched(run, recipe, trained, cache, "--max-loss", "2x") == whole


def test_the_knee_of_the_latent_space(own: tuple[Path, Path], trained: Path, run: Run) -> None:
    recipe, cache = own
    found = searched(run, recipe, trained, cache, "--knee", "--levels", ".125,.25,.375,.5,.625,.75,.875")
    losses = {left: result["metric"]["loss"] for (left,), result in everything(recipe, trained, cache).found.items()}
    assert [(point["left"], point["loss"]) for point in found["curve"]] == [
        (round(8 * left), losses[left]) for left in sorted(losses)
    ]
    assert found["knee"]["left"] == 2, "three patterns and noise: two axes tell them apart"
    assert found["winner"]["levels"] == [0.75]
    assert load_recipe(recipe.parent / "out" / "recipe.yaml").stages[0].sparsity == 0.75


def test_where_nothing_keeps_to_the_bound_the_front_is_shown(own: tuple[Path, Path], trained: Path, run: Run) -> None:
    recipe, cache = own
    begin(recipe.parent / "out", "search")
    with added(recipe.parent / "out", "recipe.yaml") as draft:
        draft.write_text("an older one", encoding="utf-8")
    where = ("-o", recipe.parent / "out", "--cache", cache, "--workers", 1)
    result = run("search", recipe, trained, "--max-params", "10", *where, code=1)
    assert "no trial is within the bounds" in result.stderr
    assert "the best trials, on held-out" in result.stdout
    assert "latent: sparsity 0.875" in result.stdout
    assert not (recipe.parent / "out" / "recipe.yaml").exists()
    found = searched(run, recipe, trained, cache, "--max-params", "10", code=1)
    assert found["winner"] is None
    assert found["front"]


def test_what_cannot_be_searched_is_told_before_anything_is_trained(
    own: tuple[Path, Path], trained: Path, tmp_path: Path, run: Run
) -> None:
    recipe, _ = own
    cache = tmp_path / "new"
    nodes = "stages.0={target: {nodes: ['encoder.*']}, criterion: norms, sparsity: .5, removal: hard}"
    by_layer = "stages.0={target: {weights: ['*']}, criterion: magnitude, layers: {'*': .5}, removal: hard}"
    for options, message in (
        ((), "nothing bounds the search"),
        (("--max-loss", "0.9x"), "the dense network itself has 1x"),
        (("--max-loss", "1e-9"), "even the dense network misses it"),
        (("--max-params", "999999999"), "the dense network is already within it"),
        (("--max-loss", "2x", "--max-macs", "0.5x"), "keep one of the two"),
        (("--knee", "--set", nodes), "target one layer of nodes"),
        (("--max-loss", "2x", "--levels", "0"), "levels are between 0 and 1"),
        (("--max-loss", "2x", "--levels", ".5", "--trials", "3"), "leave it out with several stages"),
        (("--max-loss", "2x", "--set", by_layer), "a search varies one level of each stage"),
    ):
        assert message in run("search", recipe, trained, *options, "--cache", cache, code=2).stderr
    assert len(list(cache.glob("[!.]*")) if cache.exists() else []) <= 2, "nothing but the dense network, on both parts"


def test_a_level_that_cannot_be_reached_is_no_network(own: tuple[Path, Path], trained: Path, run: Run) -> None:
    """The latent space is a small part of the network, most of which no budget for it can take."""
    recipe, cache = own
    budget = ("--set", "stages.0.criterion=norms", "--set", "stages.0.sparsity=null", "--set", "stages.0.params=0.999")
    found = searched(run, recipe, trained, cache, "--max-loss", "1000x", *budget, "--levels", ".999,.5,.1")
    failed = [trial for trial in found["trials"] if "failed" in trial]
    assert failed
    assert all("cannot be reached" in trial["failed"] for trial in failed)
    assert found["winner"]["levels"] == [0.999]
    assert found["winner"]["params"] <= 0.999 * found["dense"]["params"]


@pytest.mark.extended
def test_latency_is_taken_in_turns_with_the_dense_network(own: tuple[Path, Path], trained: Path) -> None:
    recipe, cache = own
    wide = ("stages.0={target: {nodes: ['*']}, criterion: norms, sparsity: .9, removal: hard}",)
    basis = Basis(load_recipe(recipe, [*wide, "benchmark.batch_sizes=[16, 1]"]), recipe.parent, "cpu")
    wanted = Wanted((parse("latency", "0.8x"),), "best")
    trials = Trials(Trained.of(trained), basis, wanted, Cells(cache), workers=Workers(4))
    assert trials.at_once == 1, "others would be timed as well"
    (found,) = trials.run([(0.1,)], 1)
    latency = found["latency"]
    assert latency["batch"] == 16
    assert latency["ratio"] == pytest.approx(latency["slim"] / latency["dense"], rel=0.5)
    assert 0 < latency["ratio"] < 0.8
    assert trials.holds(found)
    assert trials.limit(wanted.bounds[0]) == 0.8
    assert (trials.size(found), trials.size(trials.dense)) == (latency["ratio"], 1)


def test_single_weights_count_where_they_are_not_zero(own: tuple[Path, Path], trained: Path, run: Run) -> None:
    recipe, cache = own
    weights = 'stages.0={target: {weights: ["decoder.*"]}, criterion: magnitude, sparsity: .5, removal: hard}'
    found = searched(run, recipe, trained, cache, "--max-params", "0.8x", "--levels", ".1,.5,.9", "--set", weights)
    assert found["size"] == "nonzero"
    assert found["bounds"][0]["limit"] == 0.8 * found["dense"]["nonzero"]
    assert found["winner"]["levels"] == [0.5]
    assert found["winner"]["nonzero"] <= 0.8 * found["dense"]["nonzero"] < found["winner"]["params"]


def test_the_grids() -> None:
    assert levels.grid(4) == [0.75, 0.5, 0.25]
    grid = levels.grid(None)
    assert len(grid) == 56
    assert (grid[7], grid[15], grid[-1]) == (0.5, 0.25, 0.0078)
    assert grid == sorted(grid, reverse=True)
    assert [round(64 * share) for share in levels.halvings(64)] == [45, 32, 23, 16, 11, 8, 6, 4, 3, 2, 1]
    assert levels.halvings(2) == [0.5]


def test_the_recipe_of_a_search_without_a_winner() -> None:
    assert search.recipe_with(load_recipe("mnist_ae"), {"winner": None}) is None
