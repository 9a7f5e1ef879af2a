"""The basis of a cell, on which its key depends: the trained network, and the training samples with a held-out part."""

import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Generic, Protocol, TypeVar, cast

from torch import nn

from compress.data.dataset import Divisible, TrainingData
from compress.data.loaders import Loaders
from compress.data.validation import has_validation
from compress.errors import DataError, InputError
from compress.files.checkpoint import WeightsFile, load_weights, read_weights
from compress.ranking import MetricKind
from compress.recipe import schema
from compress.run import measuring
from compress.run.building import (
    build_model,
    build_task,
    choose_device,
    require_fit,
    require_inputs,
    trained_model,
)
from compress.run.clock import Clock
from compress.run.data_sets import build_data
from compress.run.provenance import cpu_name
from compress.run.setting import Setting, unwatched
from compress.sweep import jobs
from compress.sweep.cell_store import Cells, Code
from compress.sweep.cluster import carried
from compress.sweep.code import code_of
from compress.sweep.engines import Workers
from compress.sweep.trained import Trained
from compress.sweep_results import Cached, ComparedMetric, SweepData, SweepOrigin
from compress.tasks import ranking

HELD_OUT = 0.1
"""The held-out share of the training samples, which decides choices where there is no validation part."""

Bar = Callable[[str], AbstractContextManager[Callable[[jobs.Progress], None]]]


def silent(title: str) -> AbstractContextManager[Callable[[jobs.Progress], None]]:
    """A `Bar` that shows nothing."""
    return nullcontext(lambda progress: None)


@dataclass(frozen=True)
class Basis:
    """What cells have in common: the recipe with its data, network and task, the data folder, and the device."""

    recipe: schema.Recipe
    data_root: Path
    device: str


Result = TypeVar("Result", bound=Cached)
ResultOf = TypeVar("ResultOf", bound=Cached, covariant=True)


class Cell(Protocol[ResultOf]):
    """A run whose result depends only on itself and its basis; both are picklable."""

    def key(self, basis: Basis) -> str:
        """A hash of everything that determines the result."""
        ...

    def run(self, basis: Basis) -> ResultOf:
        """The result, a JSON document."""
        ...


def compute(
    wanted: Sequence[tuple[str, Cell[Result]]],
    basis: Basis,
    kept: Cells,
    workers: Workers,
    on_progress: Callable[[jobs.Progress], None] = lambda progress: None,
) -> list[Result]:
    """The results of (title, cell), in order, each with its `key`; finished ones are reused.

    Raises:
        SweepError: cells failed; the others are kept.
    """
    code = code_of(basis.recipe)
    keys = [cell.key(basis) for _, cell in wanted]
    carry = _Carrying(basis)
    todo = [
        jobs.Job(key, title, _Call(cell, basis, key, code), code=code, carried=partial(carry.of, cell))
        for key, (title, cell) in zip(keys, wanted, strict=True)
    ]
    found = jobs.run(todo, kept, workers, on_progress)
    return [cast(Result, {"key": key, **found[key]}) for key in keys]


@dataclass(frozen=True)
class _Call(Generic[Result]):
    cell: Cell[Result]
    basis: Basis
    key: str
    code: Code

    def __call__(self) -> Result:
        """Raises InputError if the computing process sees other data, packages or code than the sweep did."""
        if (self.cell.key(self.basis), code_of(self.basis.recipe)) != (self.key, self.code):
            raise InputError(
                "data, packages or code of a factory have changed since the sweep was started: start it again; results "
                "that are still valid are kept"
            )
        return self.cell.run(self.basis)


class _Carrying:
    """The files of cells of a basis, each read once."""

    def __init__(self, basis: Basis) -> None:
        self._recipe = cache(partial(carried.of_recipe, basis.recipe, basis.data_root))
        self._network = cache(carried.of_network)

    def of(self, cell: Cell[Result]) -> carried.Carried:
        return sum(map(self._network, carried.networks_in(cell)), self._recipe())


def determinants(trained: Trained, basis: Basis, *, tuning: bool) -> dict[str, object]:
    """Everything that the key of a cell depends on. The paths of files and the names of networks or data are not.

    Neither are settings at their default, so that a new key of recipes does not invalidate old cells.
    """
    recipe = basis.recipe
    return {
        "torch": version("torch"),
        "device": str(choose_device(basis.device)),
        "data": _content(load(recipe.data, basis.data_root, tuning)),
        "tuning": tuning,  # the held-out part is normalized like the whole set
        "model": recipe.model.model_dump(mode="json", exclude_defaults=True),
        "weights": trained.sha256,
        "task": recipe.model_dump(mode="json", include={"task"}, exclude_defaults=True)["task"],
        "batch_size": recipe.data.batch_size,
        # What else the options of images change is in the content of the data.
        **recipe.data.model_dump(mode="json", include={"normalise", "augment"}, exclude_defaults=True),
    }


def _content(data: TrainingData) -> str | None:
    return data.fingerprint if isinstance(data, Loaders) else data.sha256


def prepare(basis: Basis, seed: int, *, tuning: bool) -> Setting:
    """The data of a cell, in the order of its seed.

    Args:
        tuning: train without the held-out part, which is the validation part or a share of the training samples, and
            measure on it; the test samples are not used. Otherwise train on all training samples and measure on the
            test samples.
    """
    recipe = basis.recipe
    dataset = load(recipe.data, basis.data_root, tuning)
    device = choose_device(basis.device)
    return Setting(dataset, build_task(recipe.task), recipe.data.batch_size, device, seed, unwatched, Clock())


def network(trained: Trained, basis: Basis, seed: int) -> nn.Module:
    """The dense network, a new one for every call."""
    wanted = basis.recipe.model
    if isinstance(wanted, schema.Program):
        trained.require_unchanged()
        model, _ = trained_model(wanted, seed, trained.path)
    else:
        model = build_model(wanted, seed)
        load_weights(model, _weights(trained), str(trained.path))
    return model.to(choose_device(basis.device))


def require_network(trained: Trained, basis: Basis, seed: int) -> nn.Module:
    """`network`, after checking that the data exist and fit it.

    Raises:
        InputError: data or weights do not fit.
    """
    require_fit(basis.recipe, load(basis.recipe.data, basis.data_root, False))
    model = network(trained, basis, seed)
    require_inputs(model, prepare(basis, seed, tuning=False).example, basis.recipe)
    return model


def require_expected(trained: Trained, basis: Basis, seed: int) -> None:
    """Compare the dense network with the recipe's `expect`, before any time is spent.

    Raises:
        InputError: it is another network than its owner knows.

    Warns:
        ChanceWarning: it is no better than a constant output.
    """
    measuring.require_expected(basis.recipe, network(trained, basis, seed), prepare(basis, seed, tuning=False))


@lru_cache(maxsize=4)
def load(wanted: schema.Data, root: Path, tuning: bool) -> TrainingData:
    """The data set, downloaded to `root` if needed.

    Args:
        tuning: only its training samples, with the held-out part of them, or the validation part, to measure on.

    Raises:
        DataError: it is not available, does not fit into memory, or no part of it can be held out.
    """
    if tuning:
        return _divisible(load(wanted, root, False)).held_out(HELD_OUT)
    if isinstance(wanted, schema.FolderData):
        # Streaming would decode all files for each cell; in memory, each process reads them once.
        wanted = wanted.model_copy(update={"stream": False})
    dataset = build_data(wanted, root)
    _divisible(dataset).held_out(HELD_OUT)  # fails here rather than after the first cells
    return dataset


def _divisible(dataset: TrainingData) -> Divisible:
    if not isinstance(dataset, Divisible):
        raise DataError(f"{dataset.name} streams, and no part of it can be held out to choose settings on.")
    return dataset


def tunes_on_validation(basis: Basis) -> bool:
    """Whether settings are chosen on separate samples, and not on a share of the training samples."""
    return has_validation(load(basis.recipe.data, basis.data_root, False))


def written(ranked: MetricKind) -> ComparedMetric:
    """A metric as the results of a sweep name it."""
    return {"name": ranked.name, "better": ranked.better, "unit": ranked.unit}


def described(basis: Basis) -> SweepOrigin:
    """The part of a results.json that describes the run and its data."""
    recipe = basis.recipe
    data = load(recipe.data, basis.data_root, False)
    values = recipe.model_dump(mode="json", include={"model", "data", "task"})
    used: SweepData = {
        "name": data.name,
        "sha256": data.sha256,
        "train": data.count("train"),
        "test": data.count("test"),
    }
    if (validation := data.count("validation")) is not None:
        used["validation"] = validation
    return {
        "schema": 1,
        "recipe": {"name": recipe.name, "model": values["model"], "data": values["data"], "task": values["task"]},
        "metric": written(ranking(build_task(recipe.task))),
        "versions": {name: version(name) for name in ("softprune", "torch")} | {"python": platform.python_version()},
        "machine": {"cpu": cpu_name(), "threads": 1, "device": basis.device},
        "data": used,
        "held_out": 0.0 if has_validation(data) else HELD_OUT,
    }


@lru_cache(maxsize=8)
def _weights(trained: Trained) -> WeightsFile:
    trained.require_unchanged()
    return read_weights(trained.path)
