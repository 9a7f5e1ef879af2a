"""One cell: what it sees, what its key depends on, and the order of its data."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.run import setting
from compress.sweep.cells import HELD_OUT, Basis, prepare
from compress.sweep.compare import cells
from compress.sweep.compare.cells import StageCell
from compress.sweep.compare.grid import Grid, plan
from compress.sweep.trained import Trained

Pictures = Callable[..., dict[str, NDArray[Any]]]


@pytest.fixture
def grid(recipe: Path, trained: Path) -> Grid:
    return plan(recipe, [trained], removals=["hard", "soft", "{kind: gradual, every: 1 steps}"], seeds=2)


@pytest.fixture
def basis(grid: Grid, tmp_path: Path) -> Basis:
    return Basis(grid.recipe, tmp_path, "cpu")


def cell(grid: Grid, *, rival: int = 0, seed: int = 0, tuning: bool = False) -> StageCell:
    return StageCell(grid.model(seed), grid.rivals[rival].stage(0.5, 0.01), seed, tuning)


def seen(cell: StageCell, basis: Basis, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The targets of all training steps of the cell, in their order."""
    found: list[Tensor] = []
    original = setting.train

    def spy(model: Any, batches: Any, *rest: Any, **named: Any) -> Any:
        class Spied:
            def __len__(self) -> int:
                return len(batches)

            def __call__(self, generator: torch.Generator, skip: int = 0) -> Any:
                for inputs, targets in batches(generator, skip):
                    found.append(targets)
                    yield inputs, targets

        return original(model, Spied(), *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(setting, "train", spy)
        cell.run(basis)
    return torch.cat(found)


def test_equal_seeds_show_all_rivals_the_same_images_in_the_same_order(
    grid: Grid, basis: Basis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tuning in (False, True):
        first, *others = (
            seen(cell(grid, rival=rival, tuning=tuning), basis, monkeypatch) for rival in range(len(grid.rivals))
        )
        assert len(others) == 2
        assert len(first) == 2 * (90 if tuning else 100), "two epochs"
        assert all(torch.equal(first, other) for other in others)
        other_seed = seen(cell(grid, seed=1, tuning=tuning), basis, monkeypatch)
        assert not torch.equal(first, other_seed)
        assert torch.allclose(first.sum(0), other_seed.sum(0), rtol=1e-4), "the same images, in another order"


def poisoned(grid: Grid, tmp_path: Path, pictures: Pictures, poison: int) -> Basis:
    """Training images in their own file, and test images of one value."""
    folder = tmp_path / str(poison)
    folder.mkdir()
    train = pictures(60)
    np.savez(folder / "train.npz", **train)
    np.savez(folder / "test.npz", images=np.full_like(train["images"], poison), labels=train["labels"])
    data = {"npz": str(folder / "train.npz"), "npz_test": str(folder / "test.npz"), "batch_size": 20}
    recipe = {**grid.recipe.model_dump(mode="json", exclude_unset=True), "data": data}
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return Basis(plan(folder / "recipe.yaml", [grid.models[0].path]).recipe, tmp_path, "cpu")


def test_tuning_never_sees_the_test_images(grid: Grid, tmp_path: Path, pictures: Pictures) -> None:
    places = [poisoned(grid, tmp_path, pictures, poison) for poison in (0, 255)]
    tuning, final = cell(grid, tuning=True), cell(grid)
    assert tuning.run(places[0]) == tuning.run(places[1])
    assert tuning.key(places[0]) == tuning.key(places[1])
    assert final.run(places[0]) != final.run(places[1])
    assert final.key(places[0]) != final.key(places[1])
    whole, part = (prepare(places[0], 0, tuning=tuning).data for tuning in (False, True))
    assert (whole.count("train"), part.count("train"), part.count("test")) == (60, 54, round(HELD_OUT * 60))


def test_a_cell_repeats_itself(grid: Grid, basis: Basis) -> None:
    assert cell(grid).run(basis) == cell(grid).run(basis)
    assert set(cell(grid).run(basis)) == {
        "achieved",
        "before_removal",
        "after_removal",
        "steps",
        "removal_steps",
    }
    assert set(StageCell(grid.models[0], None, 0).run(basis)) == {"dense"}


def test_the_key_hangs_on_everything_that_decides(grid: Grid, basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    base = cell(grid)
    assert base.stage is not None
    recipe = grid.recipe
    other_recipes = [
        recipe.model_copy(update={"task": "classify"}),
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"batch_size": 10})}),
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": 90})}),
        recipe.model_copy(update={"model": recipe.model.model_copy(update={"latent": 9})}),
    ]
    others = [
        *(cell(grid, rival=rival) for rival in (1, 2)),
        cell(grid, seed=1),
        cell(grid, tuning=True),
        dataclasses.replace(base, number=1),
        dataclasses.replace(base, stage=None),
        dataclasses.replace(base, stage=grid.rivals[0].stage(0.6, 0.01)),
        dataclasses.replace(base, stage=grid.rivals[0].stage(0.5, 0.02)),
        dataclasses.replace(base, trained=dataclasses.replace(base.trained, sha256="0")),
    ]
    keys = [
        base.key(basis),
        *(base.key(dataclasses.replace(basis, recipe=other)) for other in other_recipes),
        *(other.key(basis) for other in others),
    ]
    monkeypatch.setattr(cells, "REVISION", cells.REVISION + 1)
    keys.append(base.key(basis))
    assert len(set(keys)) == len(keys) == 15


def test_the_key_does_not_hang_on_where_files_lie(grid: Grid, basis: Basis, npz: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.npz"
    moved.write_bytes(npz.read_bytes())
    recipe = grid.recipe.model_copy(
        update={"data": grid.recipe.data.model_copy(update={"npz": str(moved)}), "name": "else", "export": ()}
    )
    base = cell(grid)
    elsewhere = dataclasses.replace(base, trained=Trained(tmp_path / "moved.pt", base.trained.sha256))
    assert elsewhere.key(Basis(recipe, tmp_path / "other", "cpu")) == base.key(basis)


def test_to_diverge_is_a_result(grid: Grid, basis: Basis) -> None:
    found = dataclasses.replace(cell(grid), stage=grid.rivals[1].stage(0.5, 1e38)).run(basis)
    assert set(found) == {"diverged"}
    assert "the loss became" in found["diverged"] or "weights have diverged" in found["diverged"]
