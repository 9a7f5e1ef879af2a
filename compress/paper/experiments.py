"""The paper's experiments as data: which networks, which levels, which methods, which seeds.

A cell is one point of one line of one figure: a dense network and the recipe stage that prunes it. The settings are
those of the paper's appendix; docs/networks.md says where it is silent and what was taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from compress.recipe import schema

Start = Literal["xavier", "torch"]

COMPLETE = 1e-6
"""The share of its start at which a complete decay ends and is cut to zero."""
EARLY = (1e-2, 0.1, 0.5)
"""Where decays end that stop early, before what is left is cut."""


@dataclass(frozen=True)
class Dense:
    """A dense network and how it is trained: all that determines its weights.

    start: initial weights; "torch" is torch's own default.
    """

    model: schema.Model
    data: schema.NamedData
    task: schema.Task
    train: schema.Training
    seed: int
    start: Start = "xavier"

    def determinants(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).model_dump(mode="json") for name in ("model", "data", "train")}
        return parts | {"task": self.task, "seed": self.seed, "start": self.start}

    @property
    def images(self) -> int:
        """Training images, about: for costs."""
        return self.data.train or {"cifar10": 41_000, "mnist_sample": 4_000}.get(self.data.name, 60_000)


@dataclass(frozen=True)
class Cell:
    """One point: `dense` after `stage`, or `dense` itself where there is none.

    method: the line in the figure: "dense", "hard", "retrained", "soft", "retrained_all", "soft_all", "small".
    level: the pruned share. final: where a soft cell's decay ends. on_training_images: also measure those.
    """

    experiment: str
    dataset: str
    method: str
    dense: Dense
    stage: schema.Stage | None = None
    level: float = 0.0
    final: float | None = None
    on_training_images: bool = False

    def determinants(self) -> dict[str, Any]:
        stage = None if self.stage is None else self.stage.model_dump(mode="json")
        return {"dense": self.dense.determinants(), "stage": stage, "on_training_images": self.on_training_images}

    @property
    def title(self) -> str:
        ending = "" if self.final in (None, COMPLETE) else f" to {self.final:g}"
        level = "" if self.method == "dense" else f" {self.level:.1%}"
        return f"{self.experiment}/{self.dataset} {self.method}{ending}{level}, seed {self.dense.seed}"

    @property
    def cost(self) -> float:
        """Rough seconds on one core, for the time left."""
        epochs = (
            self.dense.train.epochs if self.stage is None else self.stage.retrain.epochs if self.stage.retrain else 0
        )
        speed = _SPEED[self.dense.model.name]  # type: ignore[union-attr]
        frozen = 0.5 if self.stage and self.stage.retrain and self.stage.retrain.trainable == "adjacent" else 1.0
        bigger = 4.0 if (self.dataset, self.experiment) == ("cifar10", "decoder") else 1.0
        return 0.5 + epochs * self.dense.images / speed * frozen * bigger


# Images a second in training, on one core of the machine where this was first run.
_SPEED = {"autoencoder": 9000, "classifier": 35000, "conv_classifier": 3000, "conv_autoencoder": 95}


@dataclass(frozen=True)
class Scale:
    """How much of everything is run; PAPER is the whole, QUICK is for a look within minutes."""

    datasets: Sequence[str]
    seeds: int
    classification_levels: Sequence[float]
    decoder_levels: Sequence[float]
    latent_levels: Sequence[float]
    early_levels: Mapping[str, Sequence[float]]  # by experiment: where decays that stop early are run too
    classifier_epochs: Mapping[str, int]
    autoencoder_epochs: Mapping[str, int]
    calibration_epochs: Sequence[int]
    calibration_batches: Sequence[int]


PAPER = Scale(
    datasets=("mnist", "fashion_mnist", "cifar10"),
    seeds=3,
    classification_levels=(0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99),
    decoder_levels=(0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98),
    latent_levels=(0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.95),
    early_levels={"classification": (0.95, 0.97), "decoder": (0.95,), "latent": (0.75, 0.95)},
    classifier_epochs={"mnist": 10, "fashion_mnist": 10, "cifar10": 10},
    autoencoder_epochs={"mnist": 20, "fashion_mnist": 20, "cifar10": 6},
    calibration_epochs=(1, 2, 3),
    calibration_batches=(64, 256),
)
QUICK = Scale(
    datasets=("mnist_sample",),
    seeds=1,
    classification_levels=(0.8, 0.9, 0.95, 0.97, 0.99),
    decoder_levels=(0.8, 0.9, 0.95),
    latent_levels=(0.25, 0.5, 0.75, 0.95),
    early_levels={"classification": (0.95,), "decoder": (0.95,), "latent": (0.75, 0.95)},
    classifier_epochs={"mnist_sample": 30},
    autoencoder_epochs={"mnist_sample": 60},
    calibration_epochs=(10, 30),
    calibration_batches=(64,),
)

SGD: Mapping[str, Any] = {"optimizer": "sgd", "lr": 0.01}
ADAMW: Mapping[str, Any] = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-4}


def all_cells(scale: Scale) -> list[Cell]:
    """Every cell, in an order in which an interrupted run says most: one seed of the paper's own levels comes first."""
    cells = [
        *calibration(scale),
        *(cell for dataset in scale.datasets for cell in classification(dataset, scale)),
        *(cell for dataset in scale.datasets for cell in decoder(dataset, scale)),
        *(cell for dataset in scale.datasets for cell in latent(dataset, scale)),
    ]
    return sorted(cells, key=lambda cell: (cell.level not in _MAIN_LEVELS[cell.experiment], cell.dense.seed))


_MAIN_LEVELS: Mapping[str, Sequence[float]] = {
    "calibration": (0.0, 0.9, 0.95, 0.97),
    "classification": (0.0, 0.5, 0.8, 0.9, 0.95, 0.97, 0.99),
    "decoder": (0.0, 0.8, 0.9, 0.95, 0.98),
    "latent": (0.0, 0.25, 0.5, 0.75, 0.95),
}


def classification(dataset: str, scale: Scale) -> Iterator[Cell]:
    """Section IV (figures 2 to 5, Table I): weights of the dense layers, one epoch of SGD."""
    for seed in range(scale.seeds):
        model = {"name": "conv_classifier" if dataset == "cifar10" else "classifier"}
        dense = _dense(model, _data(dataset, 64), "classify", {"epochs": scale.classifier_epochs[dataset], **SGD}, seed)
        cells = _lines(
            "classification", dataset, dense, {"weights": ["dense.*"]}, "magnitude", {"epochs": 1, **SGD}, scale
        )
        # Figure 3 is a confusion matrix on the training images.
        yield from (replace(cell, on_training_images=cell.level == 0.95) for cell in cells)


def decoder(dataset: str, scale: Scale) -> Iterator[Cell]:
    """Section V (figure 6): weights of an autoencoder's decoder, one epoch of AdamW."""
    for seed in range(1 if dataset == "cifar10" else scale.seeds):
        dense = _dense(_autoencoder(dataset), _data(dataset), "reconstruct", _autoencoding(dataset, scale), seed)
        retrain = {"epochs": 1, **ADAMW}
        yield from _lines("decoder", dataset, dense, {"weights": ["decoder.*"]}, "magnitude", retrain, scale)


def latent(dataset: str, scale: Scale) -> Iterator[Cell]:
    """Section VI (figures 8 to 10, Table II): nodes of the latent layer, five epochs, the rest frozen.

    Beside the paper's lines: everything retrains ("retrained_all", "soft_all"), and networks of the size that is left
    trained from the start for as many epochs ("small").
    """
    if dataset == "cifar10":
        yield from _convolutional_latent()
        return
    for seed in range(scale.seeds):
        dense = _dense(_autoencoder(dataset), _data(dataset), "reconstruct", _autoencoding(dataset, scale), seed)
        yield from _latent_lines(dataset, dense, scale.latent_levels, scale.early_levels["latent"])
        for level in scale.early_levels["latent"]:
            retrain = {"epochs": 5, **ADAMW}
            for method, removal in (("retrained_all", _hard()), ("soft_all", _soft(COMPLETE))):
                stage = _stage({"nodes": "latent"}, "skeletonization", level, removal, retrain)
                final = COMPLETE if method == "soft_all" else None
                yield Cell("latent", dataset, method, dense, stage, level, final)
            model = _autoencoder(dataset) | {"latent": 64 - round(level * 64)}
            small = _dense(model, _data(dataset), "reconstruct", {"epochs": 5, **ADAMW}, seed)
            yield Cell("latent", dataset, "small", small, level=level)


def calibration(scale: Scale) -> Iterator[Cell]:
    """Table I again with networks trained in several ways: which comes nearest to what the paper prints?

    Training length, batch size, initial weights and whether biases are pruned; the paper gives none of them.
    """
    dataset = scale.datasets[0]
    for start in ("xavier", "torch"):
        for batch in scale.calibration_batches:
            for epochs in scale.calibration_epochs:
                dense = _dense({"name": "classifier"}, _data(dataset, batch), "classify", {"epochs": epochs, **SGD}, 0)
                yield from _calibration_lines(dataset, replace(dense, start=start))


def _calibration_lines(dataset: str, dense: Dense) -> Iterator[Cell]:
    yield Cell("calibration", dataset, "dense", dense, on_training_images=True)
    retrain = {"epochs": 1, **SGD}
    for bias in (False, True):
        target = {"weights": ["dense.*"], "bias": bias}
        for level in (0.9, 0.95, 0.97):
            lines: dict[str, Any] = {"hard": _stage(target, "magnitude", level, _hard(), None)}
            lines["retrained"] = _stage(target, "magnitude", level, _hard(), retrain)
            for method, stage in lines.items():
                yield Cell("calibration", dataset, method, dense, stage, level, on_training_images=True)
            for final in () if bias else (COMPLETE, 1e-2, 0.03, 0.1, 0.5):
                stage = _stage(target, "magnitude", level, _soft(final), retrain)
                yield Cell("calibration", dataset, "soft", dense, stage, level, final, on_training_images=True)


def _convolutional_latent() -> Iterator[Cell]:
    """CIFAR-10 in section VI, reduced: hours of convolutions on a CPU are cut down to the first images."""
    data = {"name": "cifar10", "train": 2000, "test": 1000, "batch_size": 64}
    train = {"epochs": 8, **ADAMW}
    dense = _dense({"name": "conv_autoencoder"}, data, "reconstruct", train, 0)
    yield from _latent_lines("cifar10", dense, (0.25, 0.5, 0.75, 0.95), ())


# --- the lines of a figure ---


def _lines(
    experiment: str, dataset: str, dense: Dense, target: Any, criterion: Any, retrain: Mapping[str, Any], scale: Scale
) -> Iterator[Cell]:
    levels = scale.classification_levels if experiment == "classification" else scale.decoder_levels
    yield from _three_methods(
        experiment, dataset, dense, target, criterion, retrain, levels, scale.early_levels[experiment]
    )


def _latent_lines(dataset: str, dense: Dense, levels: Sequence[float], early: Sequence[float]) -> Iterator[Cell]:
    retrain = {"epochs": 5, **ADAMW, "trainable": "adjacent"}
    yield from _three_methods("latent", dataset, dense, {"nodes": "latent"}, "skeletonization", retrain, levels, early)


def _three_methods(
    experiment: str,
    dataset: str,
    dense: Dense,
    target: Any,
    criterion: Any,
    retrain: Mapping[str, Any],
    levels: Sequence[float],
    early: Sequence[float],
) -> Iterator[Cell]:
    """Hard, hard and retrained, soft: in the order of the levels, the same images in the same order for all."""
    yield Cell(experiment, dataset, "dense", dense)
    for level in levels:
        hard = _stage(target, criterion, level, _hard(), None)
        yield Cell(experiment, dataset, "hard", dense, hard, level)
        yield Cell(experiment, dataset, "retrained", dense, _stage(target, criterion, level, _hard(), retrain), level)
        for final in (COMPLETE, *(EARLY if level in early else ())):
            stage = _stage(target, criterion, level, _soft(final), retrain)
            yield Cell(experiment, dataset, "soft", dense, stage, level, final)


def _stage(target: Any, criterion: Any, level: float, removal: Any, retrain: Mapping[str, Any] | None) -> schema.Stage:
    return schema.Stage.model_validate(
        {"target": target, "criterion": criterion, "sparsity": level, "removal": removal, "retrain": retrain}
    )


def _hard() -> dict[str, Any]:
    return {"kind": "hard"}


def _soft(final: float) -> dict[str, Any]:
    """A decay over the whole retraining, as in the paper, which has no retraining after it."""
    return {"kind": "soft", "decay": "exponential", "final": final}


def _data(dataset: str, batch_size: int = 128) -> dict[str, Any]:
    first = {"train": 50_000} if dataset in ("mnist", "fashion_mnist") else {}
    return {"name": dataset, "batch_size": batch_size, **first}


def _autoencoder(dataset: str) -> dict[str, Any]:
    image = [3, 32, 32] if dataset == "cifar10" else [1, 28, 28]
    return {"name": "autoencoder", "image": image}


def _autoencoding(dataset: str, scale: Scale) -> dict[str, Any]:
    return {"epochs": scale.autoencoder_epochs[dataset], **ADAMW}


def _dense(model: Any, data: Any, task: schema.Task, train: Any, seed: int) -> Dense:
    # The schema reads what a recipe file would say.
    recipe = schema.Recipe.model_validate(
        {
            "name": "paper",
            "model": model,
            "data": data,
            "task": task,
            "train": train,
            "stages": [{"target": {"weights": ["*"]}, "criterion": "magnitude", "sparsity": 0.0, "removal": "hard"}],
        }
    )
    assert isinstance(recipe.data, schema.NamedData)
    assert recipe.train is not None
    return Dense(recipe.model, recipe.data, recipe.task, recipe.train, seed)
