"""A loss and metrics of the user's own, named in the recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

import compress
from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.run.building import build_model, build_task

MODULE = """
import torch.nn.functional as F

def smooth(output, labels):
    return F.cross_entropy(output, labels, label_smoothing=0.1)

def top_2(output, labels):
    return (output.topk(2).indices == labels[:, None]).any(1).float().mean()

def absolute(output, images):
    return (output - images).abs().mean()

def words(output, labels):
    return "good"

def each(output, labels):
    return (output.argmax(1) == labels).float()

def broken(output, labels):
    return output @ labels
"""

RECIPE = """\
name: own
model: {name: classifier, image: [1, 6, 6], classes: 3}
data: {npz: NPZ, batch_size: 20}
task: TASK
train: {epochs: 2, optimizer: adamw, lr: 1e-3}
stages:
  - target: {weights: "*"}
    criterion: taylor
    sparsity: 0.5
    removal: soft
    retrain: {epochs: 1, optimizer: adamw, lr: 1e-3, distill: {weight: 0.5}}
export: [safetensors]
"""


@pytest.fixture
def recipe(tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_measures.py").write_text(MODULE, encoding="utf-8")

    def written(task: str, **changes: str) -> Path:
        text = RECIPE.replace("NPZ", json.dumps(str(npz))).replace("TASK", task)
        for old, new in changes.items():
            text = text.replace(old, new)
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_an_own_metric_is_shown_under_its_name_everywhere(
    recipe: Any, run: Any, pictures: Callable[..., dict[str, NDArray[Any]]], tmp_path: Path
) -> None:
    path = recipe('{loss: "own_measures:smooth", metrics: {top_2: "own_measures:top_2"}}')
    trained = run("train", path, "-o", tmp_path / "model.pt")
    assert "test top_2 " in trained.stdout
    shown = run("apply", path, tmp_path / "model.pt", "-o", tmp_path / "out").stdout
    assert "test top_2" in shown
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    pages = Path(__file__).parents[2] / "docs"
    jsonschema.validate(results, json.loads((pages / "results.schema.json").read_text(encoding="utf-8")))
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| test top\\_2 (own\\_measures:top\\_2) |" in card

    # What is in results.json is what the functions say of the network that was written.
    network = compress.load(
        tmp_path / "out" / "slim.safetensors", model=lambda: build_model(load_recipe(str(path)).model, 0)
    )
    data = {key: values[100:] for key, values in pictures().items()}
    mean, std = (torch.tensor(results["data"][key]) for key in ("mean", "std"))
    images = ((torch.from_numpy(data["images"]).float() / 255).reshape(-1, 1, 6, 6) - mean) / std
    labels = torch.from_numpy(data["labels"].astype(np.int64))
    logits = network(images).detach()
    assert results["models"]["slim"]["metric"] == {
        "loss": pytest.approx(float(F.cross_entropy(logits, labels, label_smoothing=0.1)), rel=1e-4),
        "top_2": pytest.approx(float((logits.topk(2).indices == labels[:, None]).any(1).float().mean())),
    }
    assert set(results["stages"][0]["before_removal"]) == {"loss", "top_2"}


def test_images_can_be_the_target(recipe: Any, run: Any, tmp_path: Path) -> None:
    path = recipe(
        '{loss: "own_measures:absolute", target: image}',
        **{"name: classifier, image: [1, 6, 6], classes: 3": "name: autoencoder, image: [1, 6, 6], latent: 4"},
    )
    metric = json.loads(run("train", path, "-o", tmp_path / "model.pt", "--json").stdout)["metric"]
    assert list(metric) == ["loss"]
    assert 0 < metric["loss"] < 1


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ('{loss: "own_measures:missing"}', "own_measures has no function missing"),
        ('{loss: "own_measures:words"}', "own_measures:words returned str; it must return one number"),
        ('{loss: "own_measures:each"}', "own_measures:each returned a tensor of [20]; it must return one number"),
        ('{loss: "own_measures:broken"}', "own_measures:broken failed on output and target of torch.float32 [20, 3]"),
        ('{loss: "own_measures"}', "own_measures"),
        ('{loss: "own_measures:smooth", metrics: {loss: "own_measures:top_2"}}', "a metric cannot be called loss"),
        ('{metrics: {top_2: "own_measures:top_2"}}', "task.loss"),
        ("clasify", "did you mean classify?"),
    ],
)
def test_mistakes(recipe: Any, run: Any, tmp_path: Path, task: str, message: str) -> None:
    error = run("train", recipe(task), "-o", tmp_path / "model.pt", code=2).stderr
    assert message in error
    assert not (tmp_path / "model.pt").exists()


def test_rivals_are_ranked_by_the_own_loss(recipe: Any, run: Any, tmp_path: Path) -> None:
    path = recipe(
        '{loss: "own_measures:smooth", metrics: {top_2: "own_measures:top_2"}}', **{", distill: {weight: 0.5}": ""}
    )
    run("train", path, "-o", tmp_path / "model.pt")
    grid = ("--removal", "hard,soft", "--sparsity", "0.5", "--lr", "1e-3", "--seeds", "1", "--workers", "1")
    places = ("-o", tmp_path / "out", "--cache", tmp_path / "cells")
    found = json.loads(run("compare", path, tmp_path / "model.pt", *grid, *places, "--json").stdout)
    assert found["metric"] == {"name": "loss", "better": "smaller", "unit": "10^-3"}
    assert set(found["dense"][0]["dense"]) == {"loss", "top_2"}


def test_a_word_is_a_word(recipe: Any) -> None:
    assert build_task("classify") == "classify"
    assert load_recipe(str(recipe("classify"))).task == "classify"
    assert isinstance(load_recipe(str(recipe('{loss: "own_measures:smooth"}'))).task, schema.OwnTask)
