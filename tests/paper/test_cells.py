"""A cell is what the recipe engine does: the same figures with the encoder computed once, the same images for all."""

from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from compress.data.sources import mnist_sample
from compress.duration import Duration
from compress.models import autoencoder
from compress.paper import cells
from compress.paper.experiments import COMPLETE, PAPER, QUICK, PaperCell, all_cells
from compress.run.setting import Setting
from compress.train.optimization import Optimization


def small(cell: PaperCell) -> PaperCell:
    """The cell on 256 images, its network trained for two epochs."""
    data = cell.dense.data.model_copy(update={"train": 256, "test": 100})
    train = cell.dense.train.model_copy(update={"epochs": 2})
    stage = cell.stage
    if stage is not None and stage.retrain is not None:
        removal = stage.removal
        if removal.kind == "soft":
            removal = removal.model_copy(update={"over": Duration.parse("1 epoch")})
        shorter = {"retrain": stage.retrain.model_copy(update={"epochs": 1}), "removal": removal}
        stage = stage.model_copy(update=shorter)
    return replace(cell, dense=replace(cell.dense, data=data, train=train), stage=stage)


def one(experiment: str, method: str, level: float, final: float | None = None) -> PaperCell:
    found = [
        cell
        for cell in all_cells(QUICK)
        if (cell.experiment, cell.method, cell.level, cell.final) == (experiment, method, level, final)
    ]
    assert found
    return small(found[0])


@pytest.mark.usefixtures("sample")
def test_the_dense_network_is_trained_once(tmp_path: Path) -> None:
    first = cells.run(one("latent", "dense", 0.0), tmp_path, tmp_path / "networks")
    (file,) = (tmp_path / "networks").glob("[!.]*")
    written = file.stat().st_mtime_ns
    hard = cells.run(one("latent", "hard", 0.75), tmp_path, tmp_path / "networks")
    assert file.stat().st_mtime_ns == written
    assert hard["before_removal"]["loss"] == pytest.approx(first["dense"]["loss"], rel=1e-6)
    assert hard["achieved"] == 0.75
    assert hard["steps"] == 0


def without_nodes(weights: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The lowest `count` nodes of all but the last layer at zero: rows, biases and columns; each layer keeps its best.

    A node's score is the norm of its row and bias, divided by the mean of its layer.
    """
    layers = sorted({name.rpartition(".")[0] for name in weights})
    ranked = []
    for layer, reader in pairwise(layers):
        rows = np.column_stack([weights[f"{layer}.weight"], weights[f"{layer}.bias"]])
        scores = np.linalg.norm(rows, axis=1)
        ranked += [(scores[node] / scores.mean(), layer, node, reader) for node in scores.argsort()[:-1]]
    found = {name: value.copy() for name, value in weights.items()}
    for _, layer, node, reader in sorted(ranked)[:count]:
        found[f"{layer}.weight"][node] = found[f"{layer}.bias"][node] = 0
        found[f"{reader}.weight"][:, node] = 0
    return found


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(("level", "count"), [(0.5, 240), (0.8, 384)])
def test_nodes_are_ranked_together_by_their_magnitude(tmp_path: Path, level: float, count: int) -> None:
    found = cells.run(one("classification_nodes", "hard", level), tmp_path, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    weights = without_nodes(load_file(file), count)
    data = mnist_sample(train=256, test=100)
    values = ((data.test.images / 255 - data.mean.view(1, -1, 1, 1)) / data.std.view(1, -1, 1, 1)).flatten(1).numpy()
    layers = sorted({name.rpartition(".")[0] for name in weights})
    for layer in layers:
        values = values @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        values = values if layer == layers[-1] else np.tanh(values)
    truth = data.test.labels.numpy()
    shifted = values - values.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(100), truth]
    assert found["achieved"] == level
    assert found["after_removal"]["accuracy"] == pytest.approx((values.argmax(1) == truth).mean())
    assert found["after_removal"]["loss"] == pytest.approx(losses.mean(), rel=1e-4)


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(("method", "final"), [("retrained", None), ("soft", COMPLETE), ("soft", 0.5)])
def test_encoding_once_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, final: float | None
) -> None:
    cell = one("latent", method, 0.75, final)
    short = cells.run(cell, tmp_path, tmp_path)
    monkeypatch.setattr(cells, "_only_around_latent", lambda stage: False)
    whole = cells.run(cell, tmp_path, tmp_path)
    for when in ("before_removal", "after_removal"):
        assert short[when]["loss"] == pytest.approx(whole[when]["loss"], rel=1e-4)


@pytest.mark.usefixtures("sample")
def test_a_decay_that_stops_early_leaves_something_to_cut(tmp_path: Path) -> None:
    early = cells.run(one("latent", "soft", 0.95, 0.5), tmp_path, tmp_path)
    complete = cells.run(one("latent", "soft", 0.95, COMPLETE), tmp_path, tmp_path)
    assert early["before_removal"]["loss"] != pytest.approx(early["after_removal"]["loss"], rel=1e-6)
    assert complete["before_removal"]["loss"] == pytest.approx(complete["after_removal"]["loss"], rel=1e-4)


@pytest.mark.usefixtures("sample")
def test_the_confusion_matrix_is_of_the_training_images(tmp_path: Path) -> None:
    found = cells.run(one("classification", "soft", 0.95, COMPLETE), tmp_path, tmp_path)
    counts = torch.tensor(found["confusion"])
    labels = mnist_sample(train=256, test=100).train.labels
    assert counts.sum(1).tolist() == torch.bincount(labels, minlength=10).tolist()
    assert counts.diag().sum() / 256 == pytest.approx(found["training_images"]["accuracy"])


def test_keys_tell_apart_what_differs_and_nothing_else() -> None:
    cell = one("latent", "soft", 0.75, COMPLETE)
    assert cells.key(cell) == cells.key(replace(cell, method="another name"))
    other_seed = replace(cell, dense=replace(cell.dense, seed=1))
    other_start = replace(cell, dense=replace(cell.dense, start="torch"))
    keys = {cells.key(one) for one in (cell, other_seed, other_start, one("latent", "soft", 0.75, 0.5))}
    assert len(keys) == 4
    assert cells.key(cell) != cells.key(cell.dense)


@pytest.mark.usefixtures("sample")
def test_convolutions_train_in_half_precision_and_are_measured_in_full(tmp_path: Path) -> None:
    dense = next(cell for cell in all_cells(PAPER) if cell.experiment == "latent" and cell.dataset == "cifar10").dense
    setting = cells._setting(dense, mnist_sample(train=8, test=4))
    seen = list[torch.dtype]()

    class Probe(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(784, 784)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            output = self.layer(inputs.flatten(1))
            seen.append(output.dtype)
            return output.view_as(inputs)

    model = Probe()
    setting.train(model, 1, Optimization())
    setting.evaluate(model)
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.usefixtures("sample")
def test_training_in_half_precision_learns_as_in_full(tmp_path: Path) -> None:
    dense = next(cell for cell in all_cells(PAPER) if cell.experiment == "latent" and cell.dataset == "cifar10").dense
    half = cells._setting(dense, mnist_sample(train=512, test=64))
    full = Setting(**{part.name: getattr(half, part.name) for part in fields(half)})
    losses = []
    for setting in (half, full):
        model = autoencoder(8, generator=torch.Generator().manual_seed(0))
        losses.append(setting.train(model, 24, Optimization(lr=3e-3)).losses)
    assert losses[1][-1] < 0.7 * losses[1][0]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
