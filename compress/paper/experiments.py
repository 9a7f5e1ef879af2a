"""The paper's experiments as data: which networks, which levels, which methods, which seeds.

A cell is one point of one line of one figure: a dense network and the recipe stage that prunes it. The settings are
those of the paper's appendix; docs/networks.md says where it is silent and what we chose.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from compress.duration import Duration
from compress.recipe import schema
from compress.task_words import Word

Model = schema.Autoencoder | schema.ConvAutoencoder | schema.Classifier | schema.ConvClassifier
Start = Literal["xavier", "torch"]

COMPLETE = 1e-6
"""The share of the start value at which a complete decay ends and is cut to zero."""
EARLY = (1e-2, 0.1, 0.5)
"""The shares at which early decays end, before the rest is cut."""


@dataclass(frozen=True)
class Dense:
    """A dense network and its training: everything that determines its weights.

    start: initial weights; "torch" is torch's own default.
    """

    model: Model
    data: schema.NamedData
    task: Word
    train: schema.Training
    seed: int
    start: Start = "xavier"

    def determinants(self, *, defaults: bool = True) -> dict[str, Any]:
        """Everything that determines its weights, as JSON; with or without settings at their `defaults`."""
        parts = {name: _settings(getattr(self, name), defaults) for name in ("model", "data", "train")}
        return parts | {"task": self.task, "seed": self.seed, "start": self.start}

    @property
    def images(self) -> int:
        """The approximate number of training images, for costs."""
        return self.data.train or {"cifar10": 41_000, "mnist_sample": 4_000}.get(self.data.name, 60_000)


@dataclass(frozen=True)
class PaperCell:
    """One point: `dense` after `stage`, or `dense` itself without a stage.

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

    def determinants(self, *, defaults: bool = True) -> dict[str, Any]:
        """Everything that determines its result, as JSON; with or without settings at their `defaults`."""
        stage = None if self.stage is None else _settings(self.stage, defaults)
        return {
            "dense": self.dense.determinants(defaults=defaults),
            "stage": stage if stage is None or defaults else _without_implied(stage),
            "on_training_images": self.on_training_images,
        }

    @property
    def title(self) -> str:
        ending = "" if self.final in (None, COMPLETE) else f" to {self.final:g}"
        level = "" if self.method == "dense" else f" {self.level:.1%}"
        return f"{self.experiment}/{self.dataset} {self.method}{ending}{level}, seed {self.dense.seed}"

    @property
    def cost(self) -> float:
        """The rough number of seconds on one core, for the time left."""
        training = self.dense.train if self.stage is None else self.stage.retrain
        if training is None:
            return 0.5
        frozen = isinstance(training, schema.Retraining) and training.trainable == "adjacent"
        larger = isinstance(self.dense.model, schema.Autoencoder) and self.dense.model.image == schema.CIFAR_IMAGE
        images = training.epochs * self.dense.images * (0.5 if frozen else 1.0) * (4.0 if larger else 1.0)
        return 0.5 + images / _SPEED[self.dense.model.name]


def _settings(part: schema.Part, defaults: bool) -> dict[str, Any]:
    return part.model_dump(mode="json", exclude_defaults=not defaults)


def _without_implied(stage: dict[str, Any]) -> dict[str, Any]:
    """The stage without what every stage here says, and what was the default when the first cells were computed.

    Recipes have other defaults now. So the stages say it, and the keys of cells remain what they were.
    """
    kept = {name: value for name, value in stage.items() if (name, value) != ("compensate", False)}
    removal, retrain = stage["removal"], stage.get("retrain")
    if retrain and removal.get("over") == _whole(retrain):
        kept["removal"] = {name: value for name, value in removal.items() if name != "over"}
    return kept


def _whole(retrain: Mapping[str, Any]) -> str:
    """The length of the retraining, as recipes write it."""
    return str(Duration(retrain["epochs"], "epochs"))


# Images per second in training, on one core of the first machine.
_SPEED = {"autoencoder": 9000, "classifier": 35000, "conv_classifier": 3000, "conv_autoencoder": 95}


@dataclass(frozen=True)
class Scale:
    """The extent of the experiments; PAPER is everything, QUICK takes a few minutes."""

    datasets: Sequence[str]
    seeds: int
    classification_levels: Sequence[float]
    decoder_levels: Sequence[float]
    latent_levels: Sequence[float]
    node_levels: Mapping[str, Sequence[float]]  # by experiment: what is pruned by nodes instead of weights
    early_levels: Mapping[str, Sequence[float]]  # by experiment: the levels that also run early decays
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
    node_levels={"classification_nodes": (0.5, 0.7, 0.8, 0.9, 0.95), "decoder_nodes": (0.5, 0.7, 0.8, 0.9)},
    early_levels={
        "classification": (0.95, 0.97),
        "decoder": (0.95,),
        "latent": (0.75, 0.95),
        "classification_nodes": (0.8,),
        "decoder_nodes": (0.8,),
    },
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
    node_levels={"classification_nodes": (0.5, 0.8), "decoder_nodes": (0.5, 0.8)},
    early_levels={
        "classification": (0.95,),
        "decoder": (0.95,),
        "latent": (0.75, 0.95),
        "classification_nodes": (0.8,),
        "decoder_nodes": (0.8,),
    },
    classifier_epochs={"mnist_sample": 30},
    autoencoder_epochs={"mnist_sample": 60},
    calibration_epochs=(10, 30),
    calibration_batches=(64,),
)

SGD: Mapping[str, Any] = {"optimizer": "sgd", "lr": 0.01}
ADAMW: Mapping[str, Any] = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-4}


def all_cells(scale: Scale) -> list[PaperCell]:
    """Every cell, the most informative first, for interrupted runs: one seed of the paper's own levels comes first."""
    cells = [
        *calibration(scale),
        *(cell for dataset in scale.datasets for cell in classification(dataset, scale)),
        *(cell for dataset in scale.datasets for cell in decoder(dataset, scale)),
        *(cell for dataset in scale.datasets for cell in latent(dataset, scale)),
        *(cell for dataset in scale.datasets for cell in classification_nodes(dataset, scale)),
        *(cell for dataset in scale.datasets if dataset != "cifar10" for cell in decoder_nodes(dataset, scale)),
    ]

    def order(cell: PaperCell) -> tuple[bool, bool, int]:
        ours = cell.experiment in scale.node_levels  # not in the paper
        return ours, cell.level not in _MAIN_LEVELS[cell.experiment], cell.dense.seed

    return sorted(cells, key=order)


_MAIN_LEVELS: Mapping[str, Sequence[float]] = {
    "calibration": (0.0, 0.9, 0.95, 0.97),
    "classification": (0.0, 0.5, 0.8, 0.9, 0.95, 0.97, 0.99),
    "decoder": (0.0, 0.8, 0.9, 0.95, 0.98),
    "latent": (0.0, 0.25, 0.5, 0.75, 0.95),
    "classification_nodes": (0.0, 0.5, 0.8, 0.9),
    "decoder_nodes": (0.0, 0.5, 0.8),
}


def classification(dataset: str, scale: Scale) -> Iterator[PaperCell]:
    """Section IV (figures 2 to 5, Table I): weights of the dense layers, one epoch of SGD."""
    for seed in range(scale.seeds):
        dense = _classifier(dataset, scale, seed)
        early = _early("classification", scale, seed)
        for cell in _lines("classification", dataset, dense, scale.classification_levels, early):
            # Figure 3 is a confusion matrix on the training images.
            yield replace(cell, on_training_images=cell.level == 0.95)


def decoder(dataset: str, scale: Scale) -> Iterator[PaperCell]:
    """Section V (figure 6): weights of an autoencoder's decoder, one epoch of AdamW."""
    for seed in range(1 if dataset == "cifar10" else scale.seeds):
        dense = _autoencoder(dataset, scale.autoencoder_epochs[dataset], seed)
        yield from _lines("decoder", dataset, dense, scale.decoder_levels, _early("decoder", scale, seed))


def latent(dataset: str, scale: Scale) -> Iterator[PaperCell]:
    """Section VI (figures 8 to 10, Table II): nodes of the latent layer, five epochs, the rest frozen.

    In addition to the paper's lines: everything retrains ("retrained_all", "soft_all"), and networks of the pruned size
    are trained from the start for as many epochs ("small"); one seed of each.
    """
    if dataset == "cifar10":
        # Reduced to the first images, to avoid hours of convolutions on a CPU.
        data = schema.NamedData(name="cifar10", train=2000, test=1000, batch_size=64)
        model = schema.ConvAutoencoder(name="conv_autoencoder")
        dense = Dense(model, data, "reconstruct", schema.Training(epochs=8, **ADAMW), 0)
        yield from _lines("latent", dataset, dense, (0.25, 0.5, 0.75, 0.95), ())
        return
    for seed in range(scale.seeds):
        dense = _autoencoder(dataset, scale.autoencoder_epochs[dataset], seed)
        yield from _lines("latent", dataset, dense, scale.latent_levels, _early("latent", scale, seed))
        for level in scale.early_levels["latent"] if seed == 0 else ():
            everything = replace(_METHODS["latent"], retrain={"epochs": 5, **ADAMW})
            yield PaperCell("latent", dataset, "retrained_all", dense, everything.hard(level), level)
            yield PaperCell("latent", dataset, "soft_all", dense, everything.soft(level, COMPLETE), level, COMPLETE)
            small = _autoencoder(dataset, 5, seed, latent=64 - round(level * 64))
            yield PaperCell("latent", dataset, "small", small, level=level)


def classification_nodes(dataset: str, scale: Scale) -> Iterator[PaperCell]:
    """Section IV with whole nodes of the hidden dense layers instead of weights, which the paper does not prune.

    One seed of CIFAR-10, at fewer levels, since its convolutions take most of the time.
    """
    levels, early = (of["classification_nodes"] for of in (scale.node_levels, scale.early_levels))
    if dataset == "cifar10":
        levels = [level for level in levels if level in _MAIN_LEVELS["classification_nodes"]]
    for seed in range(1 if dataset == "cifar10" else scale.seeds):
        yield from _lines("classification_nodes", dataset, _classifier(dataset, scale, seed), levels, early)


def decoder_nodes(dataset: str, scale: Scale) -> Iterator[PaperCell]:
    """Section V with whole nodes of the decoder's hidden layers instead of weights."""
    levels, early = (of["decoder_nodes"] for of in (scale.node_levels, scale.early_levels))
    for seed in range(scale.seeds):
        dense = _autoencoder(dataset, scale.autoencoder_epochs[dataset], seed)
        yield from _lines("decoder_nodes", dataset, dense, levels, early)


def calibration(scale: Scale) -> Iterator[PaperCell]:
    """Table I again with networks trained in several ways, to find the nearest to the paper's figures.

    They vary training length, batch size, initial weights and whether biases are pruned, which the paper does not give.
    """
    dataset = scale.datasets[0]
    for start in ("xavier", "torch"):
        for batch in scale.calibration_batches:
            for epochs in scale.calibration_epochs:
                train = schema.Training(epochs=epochs, **SGD)
                dense = Dense(_CLASSIFIER, _data(dataset, batch), "classify", train, 0, start)
                for cell in _calibration_lines(dataset, dense):
                    yield replace(cell, on_training_images=True)


def _calibration_lines(dataset: str, dense: Dense) -> Iterator[PaperCell]:
    yield PaperCell("calibration", dataset, "dense", dense)
    for bias in (False, True):
        way = replace(_METHODS["classification"], target={"weights": ["dense.*"], "bias": bias})
        for level in (0.9, 0.95, 0.97):
            yield PaperCell("calibration", dataset, "hard", dense, way.hard(level, retrained=False), level)
            yield PaperCell("calibration", dataset, "retrained", dense, way.hard(level), level)
            for final in () if bias else (COMPLETE, 1e-2, 0.03, 0.1, 0.5):
                yield PaperCell("calibration", dataset, "soft", dense, way.soft(level, final), level, final)


# --- the lines of a figure ---


@dataclass(frozen=True)
class _Method:
    """The target, the criterion and the retraining of a section of the paper."""

    target: Mapping[str, Any]
    criterion: str
    retrain: Mapping[str, Any]
    choice: Mapping[str, Any] = field(default_factory=dict)  # what else decides which entries are chosen

    def hard(self, level: float, *, retrained: bool = True) -> schema.Stage:
        return self._stage(level, {"kind": "hard"}, self.retrain if retrained else None)

    def soft(self, level: float, final: float) -> schema.Stage:
        """A decay over the whole retraining, as in the paper, which does not retrain after it."""
        removal = {"kind": "soft", "decay": "exponential", "over": _whole(self.retrain), "final": final}
        return self._stage(level, removal, self.retrain)

    def _stage(self, level: float, removal: Any, retrain: Mapping[str, Any] | None) -> schema.Stage:
        return schema.Stage.model_validate(
            {
                "target": self.target,
                "criterion": self.criterion,
                "sparsity": level,
                **self.choice,
                "compensate": False,
                "removal": removal,
                "retrain": retrain,
            }
        )


# The criterion for nodes that is nearest to the paper's: magnitude, in one ranking over all layers. None is emptied.
_RANKED: Mapping[str, Any] = {"scope": "global", "min_keep": 1}

_METHODS = {
    "classification": _Method({"weights": ["dense.*"]}, "magnitude", {"epochs": 1, **SGD}),
    "classification_nodes": _Method({"nodes": ["dense.*"]}, "magnitude", {"epochs": 1, **SGD}, _RANKED),
    "decoder": _Method({"weights": ["decoder.*"]}, "magnitude", {"epochs": 1, **ADAMW}),
    "decoder_nodes": _Method({"nodes": ["decoder.*"]}, "magnitude", {"epochs": 1, **ADAMW}, _RANKED),
    "latent": _Method({"nodes": "latent"}, "skeletonization", {"epochs": 5, **ADAMW, "trainable": "adjacent"}),
}


def _lines(
    experiment: str, dataset: str, dense: Dense, levels: Sequence[float], early: Sequence[float]
) -> Iterator[PaperCell]:
    """Dense, and at every level hard, hard and retrained, and soft, with the same images in the same order."""
    method = _METHODS[experiment]
    yield PaperCell(experiment, dataset, "dense", dense)
    for level in levels:
        yield PaperCell(experiment, dataset, "hard", dense, method.hard(level, retrained=False), level)
        yield PaperCell(experiment, dataset, "retrained", dense, method.hard(level), level)
        for final in (COMPLETE, *(EARLY if level in early else ())):
            yield PaperCell(experiment, dataset, "soft", dense, method.soft(level, final), level, final)


def _early(experiment: str, scale: Scale, seed: int) -> Sequence[float]:
    """The levels that also run early decays: one seed, whose differences are many times the spread over seeds."""
    return scale.early_levels[experiment] if seed == 0 else ()


_CLASSIFIER = schema.Classifier(name="classifier")


def _data(dataset: str, batch_size: int = 128) -> schema.NamedData:
    # The paper trains on the first 50,000 of both.
    first = {"train": 50_000} if dataset in ("mnist", "fashion_mnist") else {}
    return schema.NamedData.model_validate({"name": dataset, "batch_size": batch_size, **first})


def _classifier(dataset: str, scale: Scale, seed: int) -> Dense:
    model = schema.ConvClassifier(name="conv_classifier") if dataset == "cifar10" else _CLASSIFIER
    train = schema.Training(epochs=scale.classifier_epochs[dataset], **SGD)
    return Dense(model, _data(dataset, 64), "classify", train, seed)


def _autoencoder(dataset: str, epochs: int, seed: int, latent: int = 64) -> Dense:
    image = schema.CIFAR_IMAGE if dataset == "cifar10" else schema.MNIST_IMAGE
    model = schema.Autoencoder(name="autoencoder", image=image, latent=latent)
    return Dense(model, _data(dataset), "reconstruct", schema.Training(epochs=epochs, **ADAMW), seed)
