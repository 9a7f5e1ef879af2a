import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor, nn

from compress.errors import DataError, InputError
from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.run.building import (
    build_model,
    choose_device,
    require_fit,
    require_inputs,
    trained_model,
)
from compress.run.data_sets import build_data

MODELS: TypeAdapter[Any] = TypeAdapter(schema.Model)
DATA: TypeAdapter[Any] = TypeAdapter(schema.Data)


@pytest.mark.parametrize(
    ("wanted", "inputs", "outputs"),
    [
        ({"name": "autoencoder", "latent": 5, "image": [3, 4, 4]}, (3, 4, 4), (3, 4, 4)),
        ({"name": "conv_autoencoder", "latent": 5}, (3, 32, 32), (3, 32, 32)),
        ({"name": "classifier", "image": [1, 6, 6], "classes": 4}, (1, 6, 6), (4,)),
        ({"name": "conv_classifier", "classes": 7}, (3, 32, 32), (7,)),
        ({"name": "lenet_300_100", "classes": 7}, (1, 28, 28), (7,)),
        ({"name": "lenet_5", "classes": 7}, (1, 28, 28), (7,)),
        ({"name": "mlp", "inputs": 5, "hidden": [4, 3], "outputs": 2}, (5,), (2,)),
        ({"name": "mlp_autoencoder", "inputs": 5, "hidden": [4, 3], "latent": 2}, (5,), (5,)),
        ({"factory": "torch.nn:Linear", "args": {"in_features": 3, "out_features": 2}}, (3,), (2,)),
    ],
    ids=lambda value: value.get("name", "factory") if isinstance(value, dict) else "",
)
def test_every_model_of_the_schema_is_built_from_its_seed(
    wanted: dict[str, Any], inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    part = MODELS.validate_python(wanted)
    models = [build_model(part, seed) for seed in (3, 3, 4)]
    assert models[0](torch.zeros(2, *inputs)).shape == (2, *outputs)
    first, same, other = (torch.cat([tensor.flatten() for tensor in model.parameters()]) for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "wanted",
    [
        *({"name": name, "classes": 10**9} for name in ("classifier", "conv_classifier", "resnet20", "row_lstm")),
        {"name": "vision_transformer", "classes": 2**31 - 1},
        {"name": "vision_transformer", "dim": 2**31 - 4},
        {"name": "row_lstm", "hidden": 2**31 - 1, "layers": 1000},
        {"name": "autoencoder", "latent": 2**31 - 1},
        {"name": "autoencoder", "image": [2**31 - 1, 2**31 - 1, 2**31 - 1]},
        {"name": "conv_autoencoder", "latent": 2**31 - 1},
        {"name": "mlp", "inputs": 2**31 - 1, "hidden": [2**31 - 1]},
        {"name": "mlp_autoencoder", "inputs": 2**31 - 1},
        {"name": "lstm_classifier", "inputs": 9, "steps": 9, "hidden": 2**31 - 1},
    ],
    ids=lambda wanted: f"{wanted['name']}, {list(wanted)[1]}",
)
def test_a_network_of_absurd_size_is_refused_before_it_is_built(
    wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.run.building._memory", lambda: 0)  # of however large a machine
    with pytest.raises(InputError, match=f"the network {wanted['name']} (would take|cannot be built)"):
        build_model(MODELS.validate_python(wanted), 0)


def test_every_kind_of_data_is_built(tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = build_data(DATA.validate_python({"npz": str(npz), "train": 30, "test": 7}), tmp_path)
    assert (found.count("train"), found.count("test"), found.shape) == (30, 7, (1, 6, 6))
    both = build_data(DATA.validate_python({"npz": str(npz), "npz_test": str(npz)}), tmp_path)
    assert (both.count("train"), both.count("test")) == (120, 120)
    asked: list[tuple[str, Path]] = []
    for name in ("mnist", "fashion_mnist", "cifar10"):
        monkeypatch.setattr(
            f"compress.data.sources.{name}", lambda root, name=name, **keys: asked.append((name, root)) or both
        )
        assert build_data(DATA.validate_python({"name": name}), tmp_path) is both
    assert asked == [(name, tmp_path) for name in ("mnist", "fashion_mnist", "cifar10")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        build_data(DATA.validate_python({"folder": str(tmp_path / "empty")}), tmp_path)
    with pytest.raises(InputError, match="no_such_module"):
        build_data(DATA.validate_python({"factory": "no_such_module:loaders"}), tmp_path)


@pytest.fixture
def folder(tmp_path: Path, pictures: Any) -> Path:
    """60 images of 6 x 6 pixels in the folders of three classes."""
    found = pictures(60)
    for number, (image, label) in enumerate(zip(found["images"], found["labels"], strict=True)):
        path = tmp_path / "images" / str(label) / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "images"


def test_a_folder_that_streams_trains_the_same_network(
    folder: Path, recipe: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    told = {}
    for stream in ("true", "false"):
        data = f"data={{folder: {json.dumps(str(folder))}, batch_size: 20, stream: {stream}, workers: 1}}"
        done = run("train", recipe, "-o", tmp_path / f"{stream}.pt", "--set", data, "--json")
        told[stream] = json.loads(done.stdout)
    weights = [torch.load(tmp_path / f"{stream}.pt", weights_only=True) for stream in told]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert "each epoch decodes the files again" in told["true"]["data"].pop("note")
    assert "last sixth of each class" in told["false"]["data"].pop("note")
    for key in ("data", "steps", "epoch_losses", "metric"):
        assert told["true"][key] == told["false"][key]


def test_the_data_must_fit_the_network(recipe: Path, tmp_path: Path, pictures: Any, npz: Path) -> None:
    np.savez(tmp_path / "large.npz", **pictures(size=8))
    wanted = load_recipe(recipe)
    require_fit(wanted, build_data(wanted.data, tmp_path))
    large = load_recipe(recipe, [f"data.npz={tmp_path / 'large.npz'}"])
    with pytest.raises(DataError, match=r"autoencoder takes inputs of 1x6x6 and large\.npz has 1x8x8"):
        require_fit(large, build_data(large.data, tmp_path))
    changes = ["model={name: classifier, image: [1, 6, 6], classes: 2}", "task=classify"]
    few = load_recipe(recipe, changes)
    with pytest.raises(DataError, match="labels up to 2 and classifier only 2 outputs"):
        require_fit(few, build_data(few.data, tmp_path))
    own = load_recipe(recipe, ["model={factory: 'mine:build'}"])
    require_fit(own, build_data(own.data, tmp_path))


class Fussy(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            raise AssertionError("it is only looked at in evaluation mode")
        if inputs.shape[1:] != (1, 6, 6):
            raise RuntimeError("too large\nand more about it")
        return inputs


def test_a_network_of_ones_own_says_itself_what_it_takes() -> None:
    wanted = load_recipe("mnist_ae", ["model={factory: 'mine:build'}"])
    model = Fussy()
    require_inputs(model, torch.zeros(2, 1, 6, 6), wanted)
    with pytest.raises(DataError, match=r"^mine:build does not run on the data, inputs of 1x8x8: too large$"):
        require_inputs(model, torch.zeros(2, 1, 8, 8), wanted)
    assert model.training


@pytest.mark.parametrize(
    ("dynamic", "match"),
    [
        ("{images: {2: height}}", "the network has no input 'images'; its inputs are inputs"),
        ("{inputs: {0: rows}}", "inputs: dimension 0 counts the samples, and varies anyway"),
        ("{inputs: {4: depth}}", r"inputs: its shape is \[2, 1, 6, 6\]; found the dimension 4"),
        ("{inputs: {2: side, 3: side}}", "the network does not run at other sizes of side than the example's"),
    ],
)
def test_sizes_that_vary_must_fit_the_network(dynamic: str, match: str) -> None:
    wanted = load_recipe("mnist_ae", ["model={factory: 'mine:build'}", f"dynamic={dynamic}"])
    with pytest.raises(InputError, match=f"^dynamic: {match}"):
        require_inputs(Fussy(), torch.zeros(2, 1, 6, 6), wanted)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="--device: found 'gpu'; there is auto, cpu, cuda"):
        choose_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(InputError, match="no CUDA device here; choose auto or cpu"):
        choose_device("cuda")


def test_the_trained_network_comes_with_what_was_unwrapped(tmp_path: Path) -> None:
    wanted = load_recipe("mnist_classifier").model
    state = build_model(wanted, 0).state_dict()
    torch.save({"net": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}, tmp_path / "w.pt")
    model, unwrapped = trained_model(wanted, 1, tmp_path / "w.pt")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert unwrapped == (
        f'{tmp_path}/w.pt: took the weights under "net", without the prefix "module."; left out 1 other: epoch'
    )
    torch.save(state, tmp_path / "w.pt")
    assert trained_model(wanted, 1, tmp_path / "w.pt")[1] is None
