"""The command from beginning to end: its files agree, its recipe runs, and what is done is not done again."""

import csv
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from compress.recipe.loading import load_recipe
from compress.run.output import added, begin
from compress.sweep.explore.sensitivity import MOST_SIZES, SHARES, _shares

Run = Callable[..., Result]

RETRAIN = "{epochs: 1, optimizer: adamw, lr: 1e-3}"
STAGE = f"{{target: {{weights: decoder.*}}, criterion: taylor, sparsity: .5, removal: soft, retrain: {RETRAIN}}}"
WEIGHTS = ("--set", f"stages.0={STAGE}")
OPTIONS = ("--levels", ".25,.5,.75,.95", "--tolerate", "1.5x", "--workers", 1)


@pytest.fixture(scope="session")
def felt(tmp_path_factory: pytest.TempPathFactory, recipe_text: str, trained: Path, run: Run) -> Path:
    """A folder with the recipe, `cells`, and in `out` what the command left; not to be changed."""
    folder = tmp_path_factory.mktemp("felt")
    (folder / "recipe.yaml").write_text(recipe_text, encoding="utf-8")
    where = ("-o", folder / "out", "--cache", folder / "cells")
    result = run("sensitivity", folder / "recipe.yaml", trained, *WEIGHTS, *OPTIONS, *where)
    (folder / "terminal.txt").write_text(result.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def found(felt: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((felt / "out" / "results.json").read_text(encoding="utf-8"))
    return content


def test_every_layer_of_the_target_is_there(felt: Path, found: dict[str, Any]) -> None:
    assert [layer["name"] for layer in found["layers"]] == [f"decoder.{number}.weight" for number in (1, 3, 5, 7, 9)]
    for layer in found["layers"]:
        assert [point["sparsity"] for point in layer["curve"]] == pytest.approx([0, 0.25, 0.5, 0.75, 0.95], abs=1e-3)
        assert layer["curve"][0]["value"] == pytest.approx(found["dense"]["value"])
        assert all(point["value"] == 1000 * point["metric"]["loss"] for point in layer["curve"])
    keys = {layer["key"] for layer in found["layers"]} | {found["together"]["key"]}
    assert keys < (kept := {path.stem for path in (felt / "cells").glob("[!.]*")})
    assert len(kept - keys) == 1  # the dense network on the test images
    assert found["together"]["metric"]["loss"] <= found["tolerated"]["limit"]
    assert found["tolerated"]["limit"] == 1.5 * found["dense"]["metric"]["loss"]


def test_the_files_agree(felt: Path, found: dict[str, Any]) -> None:
    out = felt / "out"
    names = {"results.json", "results.csv", "sensitivity.svg", "sensitivity.png", "recipe.yaml"}
    assert {path.name for path in out.glob("[!.]*")} == names
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    points = [(layer["name"], point) for layer in found["layers"] for point in layer["curve"]]
    assert [(row["layer"], float(row["sparsity"]), float(row["loss"])) for row in rows] == [
        (name, point["sparsity"], point["metric"]["loss"]) for name, point in points
    ]
    terminal = (felt / "terminal.txt").read_text(encoding="utf-8")
    for layer in found["layers"]:
        assert f"{100 * layer['share']:.1f} %" in terminal
        assert f"{layer['curve'][2]['value']:.2f}" in terminal
    assert f"{100 * found['together']['sparsity']:.1f}% of decoder.* can be pruned" in terminal


def test_the_recipe_runs_as_it_is(felt: Path, found: dict[str, Any], trained: Path, tmp_path: Path, run: Run) -> None:
    recipe = felt / "out" / "recipe.yaml"
    shares = {layer["name"]: layer["share"] for layer in found["layers"]}
    stage = load_recipe(recipe).stages[0]
    assert stage.layers == shares
    assert (stage.scope, stage.sparsity) == ("layer", None)
    results = json.loads(run("apply", recipe, trained, "-o", tmp_path / "out", "--json").stdout)
    (done,) = results["stages"]
    sizes = {layer["name"]: layer["size"] for layer in found["layers"]}
    assert done["pruned"] == sum(round(shares[name] * size) for name, size in sizes.items())
    assert done["asked"] == pytest.approx(found["together"]["sparsity"])
    assert done["measure"] == "sparsity"


def test_it_goes_on_where_it_was(felt: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    cache = tmp_path / "cells"
    cache.mkdir()
    for path in (felt / "cells").iterdir():
        (cache / path.name).write_bytes(path.read_bytes())
    gone = sorted(cache.glob("[!.]*"))[0]
    gone.unlink()
    before = {path: path.stat().st_mtime_ns for path in cache.glob("[!.]*")}
    where = ("-o", tmp_path / "out", "--cache", cache, "--json")
    again = json.loads(run("sensitivity", felt / "recipe.yaml", trained, *WEIGHTS, *OPTIONS, *where).stdout)
    after = {path: path.stat().st_mtime_ns for path in cache.glob("[!.]*")}
    assert {path for path in after if after[path] != before.get(path)} == {gone}
    assert again == json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    first = json.loads((felt / "out" / "results.json").read_text(encoding="utf-8"))
    assert again["together"] == first["together"]


def test_a_latent_space_is_tried_at_every_size(recipe: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1)
    axes = ("--set", "stages.0.criterion=principal_axes")
    found = json.loads(run("sensitivity", recipe, trained, "--tolerate", "1.5x", *axes, *where, "--json").stdout)
    (layer,) = found["layers"]
    assert [point["left"] for point in layer["curve"]] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert found["knee"] == 2, "three patterns and noise: two axes tell them apart"
    stage = load_recipe(tmp_path / "out" / "recipe.yaml").stages[0]
    assert stage.layers is None, "a single layer has a sparsity"
    assert stage.sparsity == layer["share"]
    within = [point["left"] for point in layer["curve"] if point["metric"]["loss"] <= found["tolerated"]["limit"]]
    assert round(8 * (1 - layer["share"])) == min(within) < 8


def test_where_nothing_can_go_there_is_no_recipe(recipe: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    begin(tmp_path / "out", "sensitivity")
    with added(tmp_path / "out", "recipe.yaml") as draft:
        draft.write_text("an older one", encoding="utf-8")
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1)
    result = run("sensitivity", recipe, trained, "--tolerate", "1x", "--levels", ".9", *where, code=1)
    assert "nothing can be pruned within --tolerate 1x" in result.stderr
    assert "sensitivity.svg" in result.stdout
    assert not (tmp_path / "out" / "recipe.yaml").exists()


def test_what_does_not_fit_is_told_before_anything_runs(recipe: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    cells = tmp_path / "cells"
    axes = "stages.0={target: {nodes: [latent, 'encoder.*']}, criterion: principal_axes, sparsity: .5, removal: hard}"
    for options, message in (
        (("--tolerate", "much"), "--tolerate much: give a number"),
        (("--stage", "1"), "--stage 1: tiny has the stages 0 to 0"),
        (("--levels", "half"), "--levels half: give numbers"),
        (("--levels", "1"), "--levels 1: levels are between 0 and 1"),
        (("--set", "stages.0.target.nodes=nothing"), "There is no layer 'nothing'"),
        (("--set", axes), "principal_axes prunes a single layer"),
    ):
        assert message in run("sensitivity", recipe, trained, *options, "--cache", cells, code=2).stderr
    assert not cells.exists()


def test_the_sizes_of_a_wide_layer_are_spread_by_factors() -> None:
    assert _shares({"a": 8, "b": 8}, nodes=True) == SHARES
    assert _shares({"a": 8}, nodes=False) == SHARES
    assert len(_shares({"a": MOST_SIZES}, nodes=True)) == MOST_SIZES
    left = [round(1000 * (1 - share)) for share in _shares({"a": 1000}, nodes=True)]
    assert (left[0], left[-1]) == (1000, 1)
    assert left == sorted(set(left), reverse=True)
    assert len(left) <= MOST_SIZES
    assert max(a / b for a, b in pairwise(left) if b > 20) < 1.2


def test_a_network_without_a_finite_loss_is_refused(recipe: Path, trained: Path, run: Run, tmp_path: Path) -> None:
    weights = torch.load(trained, weights_only=True)
    for layer in ("decoder.5", "decoder.7", "decoder.9"):  # infinities of both signs, which add up to NaN
        weights[f"{layer}.weight"].copy_(3e38 * weights[f"{layer}.weight"].sign())
    torch.save(weights, tmp_path / "wild.pt")
    stage = f"stages.0={STAGE.replace('taylor', 'magnitude').replace('decoder.*', 'decoder.1.weight')}"
    options = ("--set", stage, "--levels", ".5", "--workers", 1, "--cache", tmp_path / "cells")
    result = run("sensitivity", recipe, tmp_path / "wild.pt", *options, "-o", tmp_path / "out", code=2)
    assert "wild.pt: the network's loss on the held-out samples is not finite; use weights from" in result.stderr
