"""A recipe inside a file of weights is a stranger's word: what it asks for is held to the size of the file."""

import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress import models
from compress.errors import InputError
from compress.files.checkpoint import WeightsFile
from compress.recipe import schema
from compress.run import noted
from compress.run.building import build_model, example_of
from compress.run.exporting import export
from compress.run.inspecting import inspect

STAGES = [{"target": {"nodes": ["*"]}, "criterion": {"kind": "norms"}, "sparsity": 0.5, "removal": {"kind": "hard"}}]


def recipe(model: dict[str, Any]) -> str:
    task = "reconstruct" if "autoencoder" in model["name"] else "classify"
    data = {"npz": "x.npz"}
    return json.dumps({"name": "x", "seed": 0, "model": model, "data": data, "task": task, "stages": STAGES})


def parsed(model: dict[str, Any]) -> schema.Recipe:
    found = noted.recipe_of({"recipe": recipe(model)}, "w.safetensors")
    assert found is not None
    return found


NAMED: list[dict[str, Any]] = [
    {"name": "autoencoder", "latent": 3, "image": [1, 4, 4]},
    {"name": "conv_autoencoder", "latent": 3},
    {"name": "classifier", "image": [1, 4, 4]},
    {"name": "conv_classifier"},
    {"name": "lenet_300_100"},
    {"name": "lenet_5"},
    {"name": "resnet20", "image": [3, 8, 8]},
    {"name": "row_lstm", "image": [1, 6, 4], "hidden": 4},
    {"name": "vision_transformer", "image": [1, 8, 8], "dim": 8, "depth": 1, "heads": 2, "hidden": 8},
    {"name": "mlp", "inputs": 5, "hidden": [4]},
    {"name": "mlp_autoencoder", "inputs": 5, "hidden": [4], "latent": 2},
    {"name": "lstm_classifier", "inputs": 5, "steps": 6, "hidden": 4},
]


@pytest.mark.parametrize("model", NAMED, ids=lambda model: model["name"])
def test_a_network_that_was_built_without_memory_is_the_network(model: dict[str, Any]) -> None:
    found = parsed(model)
    expected = build_model(found.model, 3).eval()
    built = noted.build(found, WeightsFile({"": expected.state_dict()}, {}), "w.safetensors", 10**6)
    drawn = example_of(found.model).mapped(
        lambda given: torch.randn(given.shape) if given.is_floating_point() else given
    )  # type: ignore[arg-type]
    assert not any(tensor.is_meta for tensor in [*built.parameters(), *built.buffers()])
    assert torch.equal(drawn.call(built), drawn.call(expected))


def edits(sizes: tuple[int, ...], times: int = 1) -> dict[str, str]:
    one = [
        {"kind": "input", "name": "float32", "index": index, "before": size, "after": size}
        for index, size in enumerate(sizes)
    ]
    return {"shape_edits": json.dumps(one * times)}


def vit(**changes: int) -> tuple[dict[str, Any], nn.Module]:
    sizes = {"patch": 4, "dim": 1, "depth": 1, "heads": 1, "hidden": 1, "classes": 2} | changes
    side = sizes.pop("side", 4)
    image = (1, side, side)
    model = models.vision_transformer(image, **sizes)
    return {"name": "vision_transformer", "image": list(image), **sizes}, model


def lstm(rows: int, layers: int = 1) -> tuple[dict[str, Any], nn.Module]:
    sizes = {"hidden": 2, "layers": layers, "classes": 2}
    return {"name": "row_lstm", "image": [1, rows, 2], **sizes}, models.row_lstm((1, rows, 2), **sizes)


def series(steps: int) -> tuple[dict[str, Any], nn.Module]:
    model = models.lstm_classifier(2, hidden=2)
    return {"name": "lstm_classifier", "inputs": 2, "steps": steps, "hidden": 2}, model


def resnet(side: int) -> tuple[dict[str, Any], nn.Module]:
    return {"name": "resnet20", "image": [3, side, side]}, models.resnet20((3, side, side), 10)


HUGE: dict[str, tuple[tuple[dict[str, Any], nn.Module], dict[str, str], str]] = {
    "an image": (resnet(2_000), {}, r"takes [\d,]+ bytes to run, out of proportion to 1,1\d\d,\d{3} bytes"),
    "activations": (resnet(600), {}, r"takes [\d,]+ bytes to run"),
    "rows": (lstm(10**5), {}, "takes 100,000 steps of recurrent layers"),
    "a million rows": (lstm(10**6), {}, "takes 1,000,000 steps of recurrent layers"),
    "series": (series(10**5), {}, "takes 100,000 steps of recurrent layers"),
    "layers of rows": (lstm(2_000, 4), {}, "takes 8,000 steps of recurrent layers"),
    "tokens": (vit(side=160, patch=1), {}, r"takes [\d,]+ bytes to run"),
    "traces": (vit(), edits((2, 1, 4, 4), 70), "70 slimmings|71 slimmings"),
    "dimensions": (vit(), edits((1,) * 100), "do not say what input it takes"),
}


@pytest.mark.parametrize("kind", HUGE)
def test_what_is_out_of_proportion_is_told_by_inspect_and_refused_by_export(tmp_path: Path, kind: str) -> None:
    (note, model), more, text = HUGE[kind]
    file = tmp_path / "w.safetensors"
    save_file(model.state_dict(), file, {"recipe": recipe(note), **more})
    started = time.process_time()
    found = inspect(file)
    assert "macs" not in found
    with pytest.raises(InputError, match=text) as refused:
        export(file, None, tmp_path / "out", ["safetensors"])
    assert str(refused.value)[:60] in found["note"]
    assert time.process_time() - started < 10
    assert not (tmp_path / "out").exists()


def test_many_traces_have_a_bound_of_operators_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("compress.slimming.edits"), "_MOST_TRACED", 150)
    note, model = vit()
    for times in (2, 40):
        save_file(
            model.state_dict(), tmp_path / "w.safetensors", {"recipe": recipe(note), **edits((2, 1, 4, 4), times)}
        )
        found = inspect(tmp_path / "w.safetensors")
        assert ("macs" in found) == (times == 2)
    assert "operators" in found["note"]


def test_rows_that_only_an_edit_names_cost_nothing(tmp_path: Path) -> None:
    note, model = lstm(4)
    started = time.process_time()
    save_file(model.state_dict(), tmp_path / "w.safetensors", {"recipe": recipe(note), **edits((2, 1, 2**24, 2))})
    assert "the slim graph holds for [N, 1, 16777216, 2]" in inspect(tmp_path / "w.safetensors")["note"]
    assert time.process_time() - started < 5


def test_a_deep_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noted, "MOST_OPERATORS", 500)
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors", {"recipe": recipe(vit(depth=1)[0] | {"depth": 100})})
    with pytest.raises(InputError, match=r"names a network of 9\d\d layers; the limit is 500"):
        export(tmp_path / "w.safetensors", None, tmp_path / "out")


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps({"stages": ["x"] * 100_000})], ids=["deep", "long"])
def test_a_recipe_that_is_longer_than_any(text: str) -> None:
    with pytest.raises(InputError, match=r"the recipe inside w\.safetensors is damaged \(.* the limit is .*\)"):
        noted.recipe_of({"recipe": text}, "w.safetensors")
