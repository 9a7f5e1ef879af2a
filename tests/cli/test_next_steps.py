"""Every `next:` line is pasted, and has to work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx.helper
import pytest
from typer.testing import Result

from compress.cli import next_steps
from compress.cli.next_steps import after_compare, after_inspect

Run = Callable[..., Result]
Pasted = Callable[[str], list[str]]


def following(result: Result) -> str:
    """The line after `next: `, the last of what is shown."""
    *_, last = result.stdout.splitlines()
    assert last.startswith("next: ")
    return last.removeprefix("next: ")


@pytest.mark.extended
def test_one_command_leads_to_the_next(
    run: Run, recipe_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pasted: Pasted
) -> None:
    """From train to apply, inspect, export, bench and inspect, with names that have to be quoted."""
    monkeypatch.chdir(tmp_path)
    written = "export: [safetensors, onnx]\nbenchmark: {batch_sizes: [1]}"
    (tmp_path / "my recipe.yaml").write_text(recipe_text.replace("export: []", written), "utf-8")
    changes = ("--set", "train.epochs=1", "--set", "model={name: autoencoder, latent: 4, image: [1, 6, 6]}")
    result = run("train", "my recipe.yaml", "-o", "my models/dense.pt", *changes, "--seed", 3)
    commands = []
    for _ in range(5):
        arguments = pasted(following(result))
        commands.append(arguments[0])
        result = run(*arguments, *(["--seconds", "0.1"] if arguments[0] == "bench" else []))
    assert commands == ["apply", "inspect", "export", "bench", "inspect"]
    results = json.loads((tmp_path / "tiny" / "results.json").read_text(encoding="utf-8"))
    assert results["seed"] == 3
    assert results["recipe"]["model"]["latent"] == 4


def test_the_folder_of_the_next_command_is_a_free_one(
    run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    result = run("train", recipe, "-o", "model.pt", "--set", "train.epochs=1")
    assert following(result).endswith("-o tiny-2")
    assert following(run("plan", recipe)).endswith("-o model-2.pt")  # a name that weights can be written to


@pytest.mark.extended
def test_what_won_a_comparison_can_be_applied(
    run: Run, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pasted: Pasted
) -> None:
    monkeypatch.chdir(tmp_path)
    rivals = ("--removal", "hard,{kind: soft, decay: linear}", "--lr", "1e-3", "--seeds", "1", "--sparsity", ".5,.75")
    result = run("compare", recipe, trained, *rivals, "--workers", "1")
    (found,) = (tmp_path / "runs").rglob("results.json")
    level = json.loads(found.read_text(encoding="utf-8"))["levels"][-1]
    winner = min(level["rivals"], key=lambda name: level["rivals"][name]["mean"])
    run(*pasted(following(result)))
    (stage,) = json.loads((tmp_path / "tiny" / "results.json").read_text(encoding="utf-8"))["stages"]
    assert stage["asked"] == 0.75
    assert winner.startswith(stage["removal"]["kind"])


@pytest.mark.parametrize(("metric", "winner"), [("loss", "hard"), ("accuracy", "soft")])
def test_the_winner_is_the_best_that_did_not_diverge(metric: str, winner: str) -> None:
    means = {"hard": 1.0, "soft": 2.0, "greg": None}
    best = {"from scratch": {"mean": 0.0 if metric == "loss" else 3.0}}
    results: dict[str, Any] = {
        "recipe": {"name": "tiny"},
        "stage": 1,
        "measure": "macs",
        "metric": {"name": metric},
        "rivals": [*({"name": name} for name in means), {"name": "from scratch", "scratch": "total"}],
        "levels": [{"sparsity": 0.5, "rivals": best | {name: {"mean": mean} for name, mean in means.items()}}],
        "cells": [
            {"rival": name, "sparsity": 0.5, "lr": None, "stage": {"removal": {"kind": name, "over": None}}}
            | {"stage": {"removal": {"kind": name, "over": None}, "criterion": "norms", "scope": None, "macs": 0.5}}
            for name in means
        ],
    }
    (line,) = after_compare(results, "r.yaml", Path("m.pt"), [])
    assert line.startswith(
        f'next: compress apply r.yaml m.pt --set \'stages.1.removal={{"kind": "{winner}"}}\' '
        "--set stages.1.criterion=norms --set stages.1.macs=0.5 -o tiny"
    )
    results["levels"][0]["rivals"] = best | {name: {"mean": None} for name in means}
    assert after_compare(results, "r.yaml", Path("m.pt"), []) == []


def test_quiet_says_no_more_than_the_results(run: Run, recipe: Path, tmp_path: Path) -> None:
    result = run("train", recipe, "-o", tmp_path / "model.pt", "--quiet", "--set", "train.epochs=1")
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{tmp_path / 'model.pt'}: test loss ")


@pytest.mark.extended
def test_what_was_found_can_be_applied(
    run: Run, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pasted: Pasted
) -> None:
    """With the changes and the seed of the search, which are in its recipe."""
    monkeypatch.chdir(tmp_path)
    weights = (
        "--set",
        'stages.0={target: {weights: ["decoder.*"]}, criterion: magnitude, sparsity: .5, removal: hard}',
    )
    common = (recipe, trained, *weights, "--seed", 7, "--levels", ".25,.5", "--workers", 1)
    for number, command in enumerate((("sensitivity", "--tolerate", "3x"), ("search", "--max-params", "0.9x")), 1):
        run(*pasted(following(run(command[0], *common, *command[1:]))))
        done = tmp_path / ("tiny" if number == 1 else f"tiny-{number}") / "results.json"
        results = json.loads(done.read_text(encoding="utf-8"))
        assert results["seed"] == 7
        assert results["stages"][0]["target"] == "decoder.*"
        assert results["stages"][0]["pruned"] > 0


@pytest.mark.parametrize(
    ("model", "exported"),
    [({"name": "autoencoder"}, True), ({"name": "program"}, False), ({"factory": "network:build"}, False)],
)
def test_no_export_is_proposed_that_is_refused(
    model: dict[str, str], exported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`export` calls no factory that a file names."""
    monkeypatch.chdir(tmp_path)
    found = {"file": "slim.safetensors", "format": "safetensors", "recipe": {"values": {"model": model}}}
    assert after_inspect(found) == (["next: compress export slim.safetensors -o files"] if exported else [])


def test_a_plan_without_weights_leads_to_a_training_if_there_can_be_one(
    run: Run, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pasted: Pasted
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    common = ("--set", "train.epochs=1", "--seed", "3")
    run(*pasted(following(run("plan", recipe, *common))))
    assert following(run("plan", recipe, trained, *common)).endswith("-o tiny-2")
    run(*pasted(following(run("plan", recipe, "model.pt", *common))))
    *_, last = run("plan", recipe, "--set", "train=null").stdout.splitlines()
    assert last == "to apply it, bring a file of trained weights: the recipe has no `train` section"


def test_the_listing_of_recipes_leads_to_one_of_them(run: Run, pasted: Pasted) -> None:
    line, _, file = following(run("recipes")).partition(" > ")
    assert file == "mine.yaml"
    assert run(*pasted(line)).stdout.startswith("#")


@pytest.mark.extended
def test_an_int8_file_can_be_timed(
    run: Run, recipe: Path, applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pasted: Pasted
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = run("quantize", applied / "slim.onnx", "--data", recipe, "--max-drop", "1e9", "-o", "new/slim.int8.onnx")
    if "next: " in kept.stdout:  # this machine's times decide whether it is kept
        run(*pasted(following(kept)))


def graph(path: Path, *sizes: int | str) -> Path:
    """An ONNX model with an input of these sizes."""
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes) for name in "xy"]
    made = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_file_that_was_inspected_can_be_timed(run: Run, tmp_path: Path, pasted: Pasted) -> None:
    for sizes, options in (((5, 3), ["--batch-sizes", "5"]), (("batch", 3), []), (("N", 3), [])):
        words = pasted(following(run("inspect", graph(tmp_path / "m.onnx", *sizes))))
        assert words[2:] == options
        run(*words, "--seconds", "0.1")
    # Which size is right, only the user knows.
    assert "next: " not in run("inspect", graph(tmp_path / "m.onnx", "batch", "length")).stdout


def test_every_next_line_is_pasted_by_a_test() -> None:
    """Add a function to both: to the module, and to a test in this file that runs the line."""
    written = {name for name in vars(next_steps) if name.startswith("after_")}
    pasted = {"train", "plan", "apply", "recipes", "export", "bench", "quantize", "inspect", "compare", "search"}
    assert written == {f"after_{command}" for command in pasted}
