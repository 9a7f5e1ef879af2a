"""One cell of a comparison: take the trained network, prune it by one recipe stage, measure."""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.checkpoint import Weights, load_weights, read_weights
from compress.compare.grid import Trained
from compress.data import Dataset
from compress.errors import DataError, TrainingError
from compress.recipe import schema
from compress.recipe.building import build_data, build_model, choose_device
from compress.recipe.choice import Pruned
from compress.recipe.clock import Clock
from compress.recipe.setting import Setting, unwatched
from compress.recipe.stages import run_stage
from compress.select.choose import LayerCollapseWarning
from compress.sweep import fingerprint

REVISION = 2  # raised when the code computes something else than before: cached cells are then computed again

HELD_OUT = 0.1
"""The share of the training images on which learning rates are chosen."""


@dataclass(frozen=True)
class Place:
    """What cells have in common: whose data, network and task, where the data lie, and what computes."""

    recipe: schema.Recipe
    data_root: Path
    device: str


@dataclass(frozen=True)
class Cell:
    """One run of one stage, or the dense network itself where there is none.

    tuning: trains on all but the held-out part of the training images, and is measured on that part; the test images
        take no part. Otherwise it trains on all training images and is measured on the test images.
    number: the stage's place in its recipe, which its chance depends on.
    """

    trained: Trained
    stage: schema.Stage | None
    seed: int
    tuning: bool = False
    number: int = 0


def key(cell: Cell, place: Place) -> str:
    """Hash of everything that determines what the cell comes to, and of nothing else: files may move.

    Settings left at their default are no part of it, so that a recipe's new key does not make old cells strangers.
    """
    recipe = place.recipe
    return fingerprint(
        {
            "revision": REVISION,
            "torch": version("torch"),
            "device": str(choose_device(place.device)),
            "data": load(recipe.data, place.data_root, cell.tuning).sha256,
            "tuning": cell.tuning,  # the held-out part is normalised like the whole
            "model": recipe.model.model_dump(mode="json", exclude_defaults=True),
            "weights": cell.trained.sha256,
            "task": recipe.task,
            "batch_size": recipe.data.batch_size,
            "seed": cell.seed,
            "number": cell.number,
            "stage": None if cell.stage is None else cell.stage.model_dump(mode="json", exclude_defaults=True),
        }
    )


def run(cell: Cell, place: Place) -> dict[str, Any]:
    """What became of the network: `dense` metrics if the cell has no stage, else `before_removal` and `after_removal`.

    Where training diverges, `diverged` says how, and there are no metrics: that too is an answer.
    """
    torch.manual_seed(cell.seed)
    setting = prepare(cell, place)
    model = network(cell, place)
    if cell.stage is None:
        return {"dense": setting.evaluate(model)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerCollapseWarning)  # that layers collapse is what a rival may show
            found = run_stage(model, cell.stage, cell.number, Pruned(), setting)
    except TrainingError as error:
        return {"diverged": str(error)}
    return {name: found[name] for name in ("achieved", "before_removal", "after_removal", "steps", "removal_steps")}


def prepare(cell: Cell, place: Place) -> Setting:
    """The data that the cell may see, in the order of its seed."""
    recipe = place.recipe
    dataset = load(recipe.data, place.data_root, cell.tuning)
    device = choose_device(place.device)
    return Setting(dataset, recipe.task, recipe.data.batch_size, device, cell.seed, unwatched, Clock())


def network(cell: Cell, place: Place) -> nn.Module:
    """The dense network, fresh for every call."""
    model = build_model(place.recipe.model, cell.seed)
    load_weights(model, _weights(cell.trained), str(cell.trained.path))
    return model.to(choose_device(place.device))


@lru_cache(maxsize=4)
def load(wanted: schema.Data, root: Path, tuning: bool) -> Dataset:
    """The data set, downloaded to `root` if need be; for `tuning` its training images alone, in two parts.

    Raises:
        DataError: it is not to be had, or does not fit into memory.
    """
    if tuning:
        return load(wanted, root, False).held_out(HELD_OUT)
    if isinstance(wanted, schema.FolderData):
        # Every process of a sweep would decode all files for each of its cells; in memory it reads them once.
        wanted = wanted.model_copy(update={"stream": False})
    dataset = build_data(wanted, root)
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{dataset.name}: loaders decide their order themselves, so rivals cannot be given the same one; "
            "give the images as npz or as a folder."
        )
    return dataset


@lru_cache(maxsize=8)
def _weights(trained: Trained) -> Weights:
    return read_weights(trained.path)
