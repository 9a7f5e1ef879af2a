"""What a cell needs on another machine: its data, network and modules, and the cell with their new paths."""

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.recipe.loading import load_recipe
from compress.sweep.cells import Basis
from compress.sweep.cluster import carried
from compress.sweep.cluster.bundles import Bundle
from compress.sweep.cluster.carried import Carried
from compress.sweep.compare.cells import ScratchCell, StageCell
from compress.sweep.trained import Trained

RECIPE = """
name: own
model: {factory: "nets.small:build"}
data: %s
task: classify
stages:
  - target: {weights: ["*"]}
    criterion: magnitude
    sparsity: 0.5
    removal: hard
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "nets" / "small.py").write_text("import shared\n\n\ndef build(): ...\n", encoding="utf-8")
    (folder / "shared.py").write_text("", encoding="utf-8")
    (folder / "beside.py").write_text("", encoding="utf-8")
    (folder / "images").mkdir()
    for name in (
        "images/one.png",
        "train.npz",
        "test.npz",
        "rows.csv",
        "more.csv",
        "MNIST/raw/idx",
        "cifar10/train.npz",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    monkeypatch.chdir(folder)
    return folder


def of(data: str, here: Path) -> tuple[Basis, Carried]:
    (here / "own.yaml").write_text(RECIPE % data, encoding="utf-8")
    recipe = load_recipe("own.yaml", [])
    return Basis(recipe, Path(), "cpu"), carried.of_recipe(recipe, Path())


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("{npz: train.npz, npz_test: test.npz}", {"train.npz": ["train.npz"], "test.npz": ["test.npz"]}),
        ("{npz: train.npz}", {"train.npz": ["train.npz"]}),
        ("{folder: images}", {"images": ["one.png"]}),
        ("{name: mnist}", {".": ["MNIST/raw/idx"]}),
        ("{name: cifar10}", {".": ["cifar10/train.npz"]}),
        ("{name: mnist_sample}", {}),
    ],
)
def test_the_files_of_data_and_code_are_found_and_moved(data: str, names: dict[str, list[str]], here: Path) -> None:
    basis, found = of(data, here)
    assert {place.text: [entry.name for entry in place.bundle.entries] for place in found.places} == names
    assert found.code is not None
    assert [entry.name for entry in found.code.entries] == ["nets/__init__.py", "nets/small.py", "shared.py"]
    assert found.roots == (str(here),)
    there = {place.text: place.moved_to(Path("/there")) for place in found.places}
    moved = carried.moved(partial(print, basis), there).args[0]
    for place in found.places:
        assert place.moved_to(None) == os.path.abspath(place.text)
        assert all(place.moved_to(Path("/there")) in str(moved) for place in found.places)
    if not names:
        assert moved == basis


@pytest.mark.parametrize("key", ["", "#ema"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_network_is_found_in_a_cell_and_moved(kind: str, key: str, here: Path, tmp_path: Path) -> None:
    (here / "saved").mkdir()
    file = here / "saved" / "pytorch_model.bin"
    torch.save({"ema": {"w": torch.ones(2)}}, file)
    path = Path(("saved" if kind == "folder" else "saved/pytorch_model.bin") + key)
    trained = Trained.of(path)
    cell = ScratchCell(StageCell(trained, None, 0), "retrain")
    assert list(carried.networks_in(cell)) == [trained]
    (place,) = carried.of_network(trained).places
    there = tmp_path / "there"
    place.bundle.unpack(place.bundle.parts(), there)
    moved = carried.moved(cell, {place.text: place.moved_to(there)})
    shutil.rmtree(here / "saved")
    moved.cell.trained.require_unchanged()  # it is read, and has the same digest
    assert str(there) in str(moved.cell.trained.path)
    assert moved == ScratchCell(StageCell(Trained(moved.cell.trained.path, trained.sha256), None, 0), "retrain")


def test_only_paths_that_are_named_are_moved() -> None:
    basis = (Path("a"), "a", partial(print, Path("a"), sep="a"), [Path("a")])
    moved = carried.moved(basis, {"a": "b"})
    assert moved[:2] == (Path("b"), "a")
    assert moved[2].args == (Path("b"),)
    assert moved[2].keywords == {"sep": "a"}
    assert moved[3] == [Path("a")]


def test_two_parts_are_one() -> None:
    code = Bundle(())
    both = Carried(written="w") + Carried(code=code, roots=("r",))
    assert both == Carried((), code, ("r",), "w")
    assert np.all([bundle == code for bundle in both.bundles])
