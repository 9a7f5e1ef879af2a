"""What is known of a file because of the recipe that is noted in it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import Result

from compress.files.checkpoint import read_weights, write_weights
from compress.models import autoencoder
from compress.recipe.loading import load_recipe
from compress.run.inspecting import inspect

Run = Callable[..., Result]


def noted(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(read_weights(file).metadata["recipe"])
    return content


def test_the_slim_network_is_known(applied: Path, results: dict[str, Any]) -> None:
    found = inspect(applied / "slim.safetensors")
    assert found["macs"] == results["models"]["slim"]["macs"]
    latent = next(one for one in found["nodes"]["prunable"] if one["name"] == "latent")
    assert latent == {"name": "latent", "layers": ["latent"], "nodes": 2, "cuttable": 0}
    assert found["nodes"]["kept"] == [{"layer": "decoder.9", "reason": "it is the network's output"}]
    macs = {layer["name"]: layer["macs"] for layer in found["layers"]}
    assert macs["latent"] == 2 * 128
    assert sum(macs.values()) == found["macs"]


def test_all_three_files_say_the_same(applied: Path, results: dict[str, Any]) -> None:
    found = [inspect(applied / f"slim.{suffix}", trusted=True) for suffix in ("safetensors", "onnx", "pt2")]
    assert {one["macs"] for one in found} == {results["models"]["slim"]["macs"]}
    layers = [{layer["name"]: layer.get("macs") for layer in one["layers"] if layer["weights"]} for one in found]
    assert layers[0] == layers[1] == layers[2]
    assert found[0]["nodes"] == found[2]["nodes"]


@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
def test_the_recipe_is_the_one_that_was_run(applied: Path, suffix: str, results: dict[str, Any]) -> None:
    recipe = inspect(applied / f"slim.{suffix}")["recipe"]
    assert recipe["values"] == results["recipe"]
    assert YAML(typ="safe").load(recipe["whole"]) == YAML(typ="safe").load((applied / "recipe.yaml").read_text())
    assert YAML(typ="safe").load(recipe["brief"]) == {
        "name": "tiny",
        "model": {"name": "autoencoder", "latent": 8, "image": [1, 6, 6]},
        "stages": [
            {
                "target": {"nodes": ["latent"]},
                "criterion": {"kind": "skeletonization"},
                "sparsity": 0.75,
                "removal": {"kind": "soft", "over": "1 epoch", "final": 1e-6},
            }
        ],
    }


def test_nodes_that_slim_would_free(applied: Path, tmp_path: Path) -> None:
    masked = read_weights(applied / "checkpoint" / "masked.safetensors").only("a file")
    write_weights(masked, tmp_path / "masked.safetensors", {"recipe": json.dumps(noted(applied / "slim.safetensors"))})
    found = inspect(tmp_path / "masked.safetensors")
    latent = next(one for one in found["nodes"]["prunable"] if one["name"] == "latent")
    assert (latent["nodes"], latent["cuttable"]) == (8, 6)
    layer = next(one for one in found["layers"] if one["name"] == "latent")
    assert (layer["zero_rows"], layer["rows"]) == (6, 8)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda recipe: recipe["model"].update(latent=16), "slim.safetensors: A shape edit expects 8 at index 0"),
        (lambda recipe: recipe.update(model={"factory": "os:abort", "args": {}}), None),
        (lambda recipe: recipe.update(seed="no"), None),
    ],
    ids=["another network", "a factory, which is not called", "no recipe"],
)
def test_a_network_that_is_not_known(applied: Path, tmp_path: Path, change: Any, note: str | None) -> None:
    weights = read_weights(applied / "slim.safetensors")
    recipe = noted(applied / "slim.safetensors")
    change(recipe)
    write_weights(
        weights.only("a file"), tmp_path / "slim.safetensors", weights.metadata | {"recipe": json.dumps(recipe)}
    )
    found = inspect(tmp_path / "slim.safetensors")
    assert not {"macs", "nodes"} & found.keys()
    assert found["entries"] == sum(tensor.numel() for tensor in weights.only("a file").values())
    assert (note in found["note"]) if note else "note" not in found
    assert ("recipe" in found) == (recipe["seed"] != "no")


def test_weights_without_a_recipe(tmp_path: Path) -> None:
    torch.save(autoencoder(8, (1, 6, 6)).state_dict(), tmp_path / "model.pt")
    assert not {"macs", "nodes", "recipe", "note"} & inspect(tmp_path / "model.pt").keys()


def test_for_people(run: Run, applied: Path) -> None:
    shown = run("inspect", applied / "slim.safetensors").stdout
    assert "nodes that can be pruned: " in shown
    assert "recipe, in short (--recipe shows all of it):" in shown
    assert "batch_size" not in shown
    whole = run("inspect", applied / "slim.safetensors", "--recipe").stdout
    recipe = whole[whole.index("recipe:\n") + len("recipe:\n") :]
    text = "\n".join(line.removeprefix("  ") for line in recipe.splitlines() if line.startswith("  "))
    (applied.parent / "again.yaml").write_text(text, encoding="utf-8")
    try:
        assert load_recipe(applied.parent / "again.yaml") == load_recipe(applied / "recipe.yaml")
    finally:
        (applied.parent / "again.yaml").unlink()


def test_a_program_is_no_network_of_a_recipe(applied: Path) -> None:
    found = inspect(applied / "slim.pt2", trusted=True)
    assert "recipe" not in found
    assert found["metadata"].keys() == {"contract"}
