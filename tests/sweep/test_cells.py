"""What cells have in common: the data that they hold."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.errors import DataError
from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.sweep import cells
from compress.sweep.cells import Basis
from compress.sweep.compare.cells import StageCell
from compress.sweep.trained import Trained


def test_a_folder_is_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(wanted: schema.FolderData, root: Path) -> None:
        asked.append(wanted)
        raise DataError("too large")

    monkeypatch.setattr(cells, "build_data", refuse)
    with pytest.raises(DataError, match="too large"):
        cells.load(schema.FolderData(folder="images", stream=True, workers=3), tmp_path, tuning=False)
    assert asked == [schema.FolderData(folder="images", stream=False, workers=3)]


TABLE = """\
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def build():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def part(seed, count):
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=10, shuffle=seed == 0)

def loaders():
    return part(0, 60), part(1, 30), part(2, 20)

def two():
    return part(0, 60), part(2, 20)
"""
SWEPT = """\
name: swept
model: {factory: "swept:build"}
data: DATA
task: classify
stages:
  - target: {nodes: "0"}
    criterion: magnitude
    sparsity: 0.5
    removal: hard
    retrain: {epochs: 1, optimizer: adam, lr: 1e-2}
export: []
"""


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Basis]:
    """The basis of cells on any data of four features and two classes, and a network `swept.pt` beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("swept.py").write_text(TABLE)
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("other", 30)):
        inputs = rng.standard_normal((count, 4)).astype(np.float32)
        np.savez(f"{name}.npz", inputs=inputs, targets=(inputs.sum(1) > 0).astype(np.int64))
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    torch.save(network.state_dict(), "swept.pt")

    def basis(data: str) -> Basis:
        Path("swept.yaml").write_text(SWEPT.replace("DATA", data))
        return Basis(load_recipe("swept.yaml"), tmp_path, "cpu")

    return basis


ARRAYS = "{npz: train.npz, npz_test: other.npz, inputs: inputs, targets: targets}"
LOADERS = '{factory: "swept:loaders"}'


@pytest.mark.parametrize("data", [ARRAYS, LOADERS])
def test_any_data_of_which_a_part_can_be_held_out_are_swept(swept: Callable[[str], Basis], data: str) -> None:
    basis, trained = swept(data), Trained.of(Path("swept.pt"))
    found = {}
    for tuning in (True, False):
        cell = StageCell(trained, basis.recipe.stages[0], 0, tuning)
        found[tuning] = cell.run(basis)["after_removal"]
        assert cell.run(basis)["after_removal"] == found[tuning], "the same seed"
        assert cell.key(basis) != StageCell(trained, basis.recipe.stages[0], 0, not tuning).key(basis)
    assert found[True] != found[False]


def test_choices_are_made_on_the_validation_part(swept: Callable[[str], Basis]) -> None:
    basis = swept(LOADERS)
    tuning, final = (cells.prepare(basis, 0, tuning=tuning) for tuning in (True, False))
    assert (tuning.data.count("train"), tuning.data.count("test")) == (60, 30)
    assert (final.data.count("train"), final.data.count("test")) == (60, 20)
    assert cells.described(basis)["held_out"] == 0
    assert cells.described(basis)["data"]["validation"] == 30
    assert cells.described(swept(ARRAYS))["held_out"] == 0.1


def test_two_loaders_cannot_be_divided(swept: Callable[[str], Basis]) -> None:
    basis = swept('{factory: "swept:two"}')
    with pytest.raises(DataError, match=r"let the function give three loaders, \(train, validation, test\)"):
        cells.load(basis.recipe.data, basis.data_root, tuning=False)


def test_the_scale_and_the_changes_of_images_are_in_the_key(swept: Callable[[str], Basis], tmp_path: Path) -> None:
    np.savez("images.npz", images=np.arange(640, dtype=np.uint8).reshape(40, 4, 4), labels=np.arange(40) % 2)
    trained, keys = Trained.of(Path("swept.pt")), set()
    data = ("", ", normalise: none", ", augment: flip", ", augment: [flip, crop]", ", validation: 0.2", ", resize: 3")
    for more in data:
        basis = swept(f"{{npz: images.npz{more}}}")
        keys.add(StageCell(trained, basis.recipe.stages[0], 0).key(basis))
    assert len(keys) == len(data)
    defaults = swept("{npz: images.npz}")
    known = cells.determinants(trained, defaults, tuning=False)
    assert not {"normalise", "augment"} & set(known), "old cells stay valid"
