"""One cell of the paper's experiments: train or load its dense network, prune it by one recipe stage, measure."""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.batches import Batches, Subset
from compress.data.dataset import Dataset, batch_rows
from compress.errors import DataError
from compress.evaluation_mode import evaluation_mode
from compress.inputs import Inputs
from compress.models import Network
from compress.paper.experiments import Dense, PaperCell
from compress.paper.networks import keep_trained, load_trained
from compress.recipe import schema
from compress.run.building import build_model
from compress.run.clock import Clock
from compress.run.data_sets import build_data
from compress.run.provenance import cpu_name
from compress.run.setting import Setting, optimization, unwatched
from compress.run.stage import run_stage
from compress.select.choose import LayerCollapseWarning
from compress.select.pruned import Pruned
from compress.select.scoring import EVALUATION_BATCH
from compress.sweep.jobs import fingerprint
from compress.tasks import Task
from compress.train import metrics
from compress.train.loop import TrainingRecord
from compress.train.optimization import Optimization

REVISION = 1  # raised when the code computes something different, so that cached cells are computed again


def key(part: Dense | PaperCell) -> str:
    """A hash of everything that determines a dense network or the result of a cell.

    Settings at their default are left out, so that a new key of recipes does not invalidate old cells.
    """
    return fingerprint({"revision": REVISION, "torch": version("torch"), **part.determinants(defaults=False)})


def run(cell: PaperCell, data_root: Path, cache: Path) -> dict[str, Any]:
    """The outcome of a cell: `dense` metrics if it has no stage, else `before_removal` and `after_removal`; and `cpu`.

    The dense network is read from `cache`, or trained and stored there.
    """
    dataset = load(cell.dense.data, data_root)
    weights = cache / f"{key(cell.dense)}.safetensors"
    model = _dense(cell.dense, dataset, weights)
    setting = _setting(cell.dense, dataset)
    if cell.stage is None:
        return {"dense": setting.evaluate(model), **_on_training_images(cell, model, setting), "cpu": cpu_name()}
    if _only_around_latent(cell.stage):
        features = _encoded(cell.dense, dataset, weights)
        parts = {name: model.get_submodule(name) for name in ("latent", "decoder")}
        model, setting = Network(features.shape, **parts), dataclasses.replace(setting, data=features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)  # collapsing layers are part of the paper's figures
        found = run_stage(model, cell.stage, 0, Pruned(), setting)
    result = {name: found[name] for name in ("achieved", "before_removal", "after_removal", "steps")}
    return {**result, **_on_training_images(cell, model, setting), "cpu": cpu_name()}


def _on_training_images(cell: PaperCell, model: nn.Module, setting: Setting) -> dict[str, Any]:
    if not cell.on_training_images:
        return {}
    batches = setting.data.batches("train", EVALUATION_BATCH, setting.task)
    return {"training_images": metrics.evaluate(model, batches, setting.task), "confusion": _confusion(model, batches)}


def _confusion(model: nn.Module, batches: Batches) -> list[list[int]]:
    """Images by true class (row) and predicted class (column)."""
    counts = torch.zeros(0, dtype=torch.int64)
    with evaluation_mode(model):
        for inputs, labels in batches():
            logits = model(inputs)
            classes = logits.shape[1]
            found = torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
            counts = found if not len(counts) else counts + found
    rows: list[list[int]] = counts.view(classes, classes).tolist()
    return rows


# --- the dense network ---


@lru_cache(maxsize=4)
def load(wanted: schema.Data, root: Path) -> Dataset:
    """The data set, downloaded to `root` if needed. Raises DataError if it is not available."""
    dataset = build_data(wanted, root)
    if not isinstance(dataset, Dataset):
        raise DataError(f"{dataset.name} is not in memory; the paper's experiments run on named data sets.")
    return dataset


def _dense(dense: Dense, dataset: Dataset, path: Path) -> nn.Module:
    model = build_model(dense.model, dense.seed)
    if dense.start == "torch":
        torch.manual_seed(dense.seed)
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.reset_parameters()
    if isinstance(dense.model, schema.ConvAutoencoder):
        model.to(memory_format=torch.channels_last)
    if load_trained(model, path, key(dense)):
        return model
    setting = _setting(dense, dataset)
    setting.train(model, dense.train.epochs * setting.steps_per_epoch, optimization(dense.train))
    keep_trained(model, path, key(dense))
    return model


@dataclass(frozen=True)
class _HalfPrecision(Setting):
    """Trains in bfloat16, and measures in float32."""

    def train(self, model: nn.Module, steps: int, optimization: Optimization, *others: Any) -> TrainingRecord:
        return super().train(model, steps, dataclasses.replace(optimization, precision="bfloat16"), *others)


def _setting(dense: Dense, dataset: Dataset) -> Setting:
    kind = _HalfPrecision if isinstance(dense.model, schema.ConvAutoencoder) else Setting
    return kind(dataset, dense.task, dense.data.batch_size, torch.device("cpu"), dense.seed, unwatched, Clock())


# --- the frozen encoder, computed once ---


def _only_around_latent(stage: schema.Stage) -> bool:
    """Whether nothing before the latent layer changes."""
    nodes = isinstance(stage.target, schema.Nodes) and stage.target.nodes == ("latent",)
    return nodes and (stage.retrain is None or stage.retrain.trainable == "adjacent")


@dataclass(frozen=True, eq=False)
class _Features:
    """The inputs of the latent layer for every image; the targets are still the images."""

    name: str
    train: Tensor  # [N, features]
    test: Tensor
    images: Dataset
    classes: int | None = None
    class_names: None = None
    preparation: None = None
    sha256: str | None = None
    note: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape[1:])

    @property
    def example(self) -> Inputs:
        return Inputs((self.train[:2],))

    def count(self, subset: Subset) -> int:
        return len(getattr(self, subset))

    @property
    def attributes(self) -> Mapping[str, int]:
        return {}

    def batches(
        self,
        subset: Subset,
        size: int,
        task: Task,
        device: torch.device | str = "cpu",
        *,
        attributes: Sequence[str] = (),
    ) -> Batches:
        images = self.images.train.images if subset == "train" else self.images.test.images
        return _FeatureBatches(getattr(self, subset), images, size)


@dataclass(frozen=True, eq=False)
class _FeatureBatches:
    features: Tensor
    images: Tensor
    size: int

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """In the order of `Dataset`'s batches: methods that also train the encoder see the same images in each step."""
        for rows in batch_rows(len(self.images), self.size, generator)[skip:]:
            yield self.features[rows], self.images[rows].float().div_(255)


@lru_cache(maxsize=1)  # the cells of a network come one after the other
def _encoded(dense: Dense, dataset: Dataset, weights: Path) -> _Features:
    encoder = _dense(dense, dataset, weights).get_submodule("encoder")

    def encode(subset: Subset) -> Tensor:
        with evaluation_mode(encoder):
            return torch.cat([encoder(inputs) for inputs, _ in dataset.batches(subset, EVALUATION_BATCH, dense.task)()])

    return _Features(f"{dataset.name}, encoded", encode("train"), encode("test"), dataset)
