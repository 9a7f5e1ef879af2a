"""What a recipe may say: strict, frozen pydantic models, and the JSON schema that editors complete recipes with.

A recipe holds a model, a data set and stages; where a key has several forms, the form is told by one key of it
(`name`, `kind`, or which of `nodes`/`weights`, `npz`/`folder`/... is there), so that a mistake is one mistake.
Rules between keys stand at the later of the two, as field validators that look back through `info.data`: pydantic
runs those even where other keys are wrong, and so everything is reported at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    Strict,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
)

Task = Literal["reconstruct", "classify"]

MNIST_IMAGE: Final = (1, 28, 28)
CIFAR_IMAGE: Final = (3, 32, 32)

T = TypeVar("T")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# --- small types ---------------------------------------------------------------------------------------------------


def _without_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"{value} is there twice; name it once")
    return values


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


# A YAML list arrives as a Python list, which strict mode would not take for a tuple.
Listed = Annotated[tuple[T, ...], Strict(False)]
Distinct = Annotated[Listed[T], AfterValidator(_without_repeats)]
SomeDistinct = Annotated[Listed[T], Field(min_length=1), AfterValidator(_without_repeats)]

Text = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Image = Annotated[tuple[Count, Count, Count], Strict(False)]
Names = Annotated[SomeDistinct[Text], BeforeValidator(_listed, json_schema_input_type=Text | SomeDistinct[Text])]
Factory = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"),
    Field(description="a function of yours, as my_module:build"),
]


@dataclass(frozen=True)
class Duration:
    """A stretch of training, written as "3 epochs", "0.5 epochs" or "1000 steps"."""

    amount: float
    unit: Literal["epochs", "steps"]

    # The few decimals keep `str` free of exponents, so that it reads back as the same number.
    PATTERN: ClassVar[str] = r"^([0-9]{1,9}(?:\.[0-9]{1,4})?) +(step|epoch)s?$"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read "3 epochs"; raises ValueError where there is no unit, nothing to wait for, or a part of a step."""
        if isinstance(value, cls):
            return value
        match = re.fullmatch(cls.PATTERN, value) if isinstance(value, str) else None
        if match is None or not float(match[1]) or (match[2] == "step" and not float(match[1]).is_integer()):
            raise ValueError(f"found {value!r}; needs a number above 0 and its unit, as `3 epochs` or `1000 steps`")
        return cls(float(match[1]), "steps" if match[2] == "step" else "epochs")

    def steps(self, steps_per_epoch: int) -> int:
        """The duration in optimizer steps, at least one."""
        return max(1, round(self.amount * (steps_per_epoch if self.unit == "epochs" else 1)))

    def __str__(self) -> str:
        return f"{self.amount:.15g} {self.unit[:-1] if self.amount == 1 else self.unit}"


DurationText = Annotated[
    Duration,
    PlainValidator(Duration.parse, json_schema_input_type=Annotated[str, Field(pattern=Duration.PATTERN)]),
    PlainSerializer(str, return_type=str),
]


# --- choosing between forms ----------------------------------------------------------------------------------------


def _told_by(noun: str, *keys: str) -> Discriminator:
    """Choose the form, tagged "KEY NOUN", whose key is there; none of them, or several, is a mistake."""

    def tag(value: Any) -> str | None:
        present = [key for key in keys if (key in value if isinstance(value, Mapping) else hasattr(value, key))]
        return f"{present[0]} {noun}" if len(present) == 1 else None

    return Discriminator(
        tag,
        custom_error_type="one_of_keys",
        custom_error_message=f"needs a mapping with exactly one of the keys {', '.join(keys)}",
    )


def _spelled_out(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


# --- model ---------------------------------------------------------------------------------------------------------


class Autoencoder(Part):
    """Dense autoencoder of the paper's Tables IV and V; parts `encoder`, `latent`, `decoder`."""

    task: ClassVar[Task] = "reconstruct"

    name: Literal["autoencoder"]
    latent: Count = Field(default=64, description="number of latent nodes")
    image: Image = Field(default=MNIST_IMAGE, description="channels, height, width")


class ConvAutoencoder(Part):
    """Convolutional autoencoder of the paper's Table IV; parts `encoder`, `latent`, `decoder`."""

    task: ClassVar[Task] = "reconstruct"
    image: ClassVar[tuple[int, int, int]] = CIFAR_IMAGE

    name: Literal["conv_autoencoder"]
    latent: Count = Field(default=64, description="number of latent nodes")


class Classifier(Part):
    """Dense classifier of the paper's Table III; its layers are in `dense`."""

    task: ClassVar[Task] = "classify"

    name: Literal["classifier"]
    image: Image = Field(default=MNIST_IMAGE, description="channels, height, width")
    classes: int = Field(default=10, ge=2, description="number of classes")


class ConvClassifier(Part):
    """Convolutional classifier of the paper's Table III; parts `features` and `dense`."""

    task: ClassVar[Task] = "classify"
    image: ClassVar[tuple[int, int, int]] = CIFAR_IMAGE

    name: Literal["conv_classifier"]
    classes: int = Field(default=10, ge=2, description="number of classes")


class FactoryModel(Part):
    """A network of one's own: `factory(**args)` returns the module."""

    factory: Factory
    args: dict[str, JsonValue] = Field(default={}, description="arguments of the factory, by name")


Model = Annotated[
    Annotated[
        Annotated[Autoencoder | ConvAutoencoder | Classifier | ConvClassifier, Field(discriminator="name")],
        Tag("name model"),
    ]
    | Annotated[FactoryModel, Tag("factory model")],
    _told_by("model", "name", "factory"),
]


# --- data ----------------------------------------------------------------------------------------------------------

FirstTrain = Annotated[Count | None, Field(description="use the first so many training images; all if absent")]
FirstTest = Annotated[Count | None, Field(description="use the first so many test images; all if absent")]
BatchSize = Annotated[Count, Field(description="images in a batch")]


class NamedData(Part):
    """A data set that the project knows."""

    images: ClassVar[Mapping[str, tuple[int, int, int]]] = {
        "mnist": MNIST_IMAGE,
        "fashion_mnist": MNIST_IMAGE,
        "cifar10": CIFAR_IMAGE,
        "mnist_sample": MNIST_IMAGE,
    }

    name: Literal["mnist", "fashion_mnist", "cifar10", "mnist_sample"]
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class NpzData(Part):
    """Arrays `images` (uint8, [N, C, H, W]) and `labels` in numpy files."""

    npz: Text = Field(description="file with the images; a part is held out for testing where there is no `npz_test`")
    npz_test: Text | None = Field(default=None, description="file with the test images")
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class FolderData(Part):
    """Images in one folder per class, below train/ and test/ or directly."""

    folder: Text = Field(description="holds train/CLASS and test/CLASS, or CLASS folders")
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class FactoryData(Part):
    """Data of one's own: `factory()` returns a pair of loaders, which decide on images and batches themselves."""

    train: ClassVar[None] = None
    test: ClassVar[None] = None
    batch_size: ClassVar[int] = 1

    factory: Factory


Data = Annotated[
    Annotated[NamedData, Tag("name data")]
    | Annotated[NpzData, Tag("npz data")]
    | Annotated[FolderData, Tag("folder data")]
    | Annotated[FactoryData, Tag("factory data")],
    _told_by("data", "name", "npz", "folder", "factory"),
]


# --- training ------------------------------------------------------------------------------------------------------


class Training(Part):
    """How the dense network is trained, by `compress train`."""

    epochs: int = Field(ge=1, description="passes over the training images")
    optimizer: Literal["sgd", "adam", "adamw"] = Field(description="sgd, adam or adamw")
    lr: float = Field(gt=0, description="learning rate; where it starts, if there is a schedule")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of the optimizer")
    lr_schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="constant, or cosine or linear down to 0"
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the training over which the learning rate first rises"
    )

    @field_validator("momentum")
    @classmethod
    def _momentum_is_for_sgd(cls, momentum: float, info: ValidationInfo) -> float:
        if momentum and (optimizer := info.data.get("optimizer", "sgd")) != "sgd":
            raise ValueError(
                f"found {momentum}, and {optimizer} has no momentum; remove the key, or use optimizer: sgd"
            )
        return momentum


def _trainable_form(value: object) -> str:
    return "word" if isinstance(value, str) else "patterns"


Trainable = Annotated[
    Annotated[Literal["all", "adjacent"], Tag("word")] | Annotated[SomeDistinct[Text], Tag("patterns")],
    Discriminator(_trainable_form),
]


class Distillation(Part):
    """The network also learns what the dense one says of the training images."""

    weight: float = Field(gt=0, le=1, description="share of the dense network's part in the loss")
    temperature: float = Field(default=1.0, gt=0, description="divides the logits of both; for classify")


class Retraining(Training):
    """How the remaining parameters train while, or after, the others go."""

    epochs: int = Field(ge=0, description="passes over the training images; 0 for none")
    trainable: Trainable = Field(
        default="all", description="all, adjacent to the pruned nodes, or a list of patterns of parameter names"
    )
    batch_size: Count | None = Field(default=None, description="images in a batch; as many as in `data` if absent")
    distill: Distillation | None = Field(
        default=None, description="learn from the dense network too; from the images alone if absent"
    )


# --- stages --------------------------------------------------------------------------------------------------------


class Nodes(Part):
    """Outputs of layers, which `slim` then cuts out."""

    nodes: Names = Field(description="name of a layer, or a list of names; their output nodes are pruned")


class Weights(Part):
    """Single weights."""

    weights: Names = Field(description="patterns of parameter names, such as decoder.*")
    bias: bool = Field(default=False, description="whether biases are pruned as well")


Target = Annotated[
    Annotated[Nodes, Tag("nodes target")] | Annotated[Weights, Tag("weights target")],
    _told_by("target", "nodes", "weights"),
]


class Magnitude(Part):
    """The smallest |weight| goes first; for nodes, the smallest norm of the node's row."""

    kind: Literal["magnitude"]


class Random(Part):
    """Chance, by the recipe's seed."""

    kind: Literal["random"]


def _samples_form(value: object) -> str:
    return "word" if isinstance(value, str) else "count"


Samples = Annotated[
    Annotated[Literal["all"], Tag("word")] | Annotated[Count, Tag("count")], Discriminator(_samples_form)
]


class Skeletonization(Part):
    """The node whose factor a has the smallest |dE/da| goes first (Mozer & Smolensky, 1988; paper, eq. 2-3)."""

    kind: Literal["skeletonization"]
    error: Literal["loss", "linear"] = Field(
        default="loss", description="E: the training loss, or the linear error sum|t - o|"
    )
    reduce: Literal["sum", "abs", "square"] = Field(
        default="square",
        description="how the images' derivatives add up: as they are (the paper), absolute, or squared",
    )
    samples: Samples = Field(5000, description="score on the first so many training images, or on all")


class ScaledMagnitude(Part):
    """The smallest |weight| * sqrt(fan-in) goes first: layers of small weights are not emptied."""

    kind: Literal["scaled_magnitude"]


class Lamp(Part):
    """The smallest w^2, as a share of all squares in its tensor that are as large, goes first (Lee, 2021)."""

    kind: Literal["lamp"]


class Gradient(Part):
    """The weight on which the loss hangs least, by |w g| (taylor), (w g)^2 or |w mean g| (snip), goes first."""

    kind: Literal["taylor", "taylor_square", "snip"]
    samples: Samples = Field(5000, description="score on the first so many training images, or on all")


class Obd(Part):
    """The smallest w^2 h / 2, with h the diagonal of the Fisher information, goes first (LeCun, 1990)."""

    kind: Literal["obd"]
    samples: Samples = Field(1000, description="score on the first so many training images, or on all")


class Norms(Part):
    """The node with the smallest norm of its rows times norm of its columns goes first."""

    kind: Literal["norms"]


class Variance(Part):
    """The node whose activation, as its readers see it, varies least between images goes first."""

    kind: Literal["variance"]
    samples: Samples = Field(5000, description="score on the first so many training images, or on all")


class PrincipalAxes(Part):
    """Directions instead of nodes: the layer that reads them is taken apart along the principal axes of what it reads,
    and the axes along which the images vary least go first."""

    kind: Literal["principal_axes"]
    samples: Samples = Field(5000, description="score on the first so many training images, or on all")


class Ablation(Part):
    """The node without which the loss rises least goes first: a pass over the images for each node."""

    kind: Literal["ablation"]
    samples: Samples = Field(1000, description="score on the first so many training images, or on all")


CriterionName = Literal[
    "magnitude",
    "random",
    "scaled_magnitude",
    "lamp",
    "taylor",
    "taylor_square",
    "snip",
    "obd",
    "skeletonization",
    "norms",
    "variance",
    "ablation",
    "principal_axes",
]
ForWeights = ScaledMagnitude | Lamp | Gradient | Obd
ForNodes = Skeletonization | Norms | Variance | Ablation | PrincipalAxes
AnyCriterion = Annotated[Magnitude | Random | ForWeights | ForNodes, Field(discriminator="kind")]
Criterion = Annotated[AnyCriterion, BeforeValidator(_spelled_out, json_schema_input_type=CriterionName | AnyCriterion)]


class HardRemoval(Part):
    """Zero at once, before the retraining."""

    kind: Literal["hard"]


class SoftRemoval(Part):
    """Decay to zero during the retraining (paper, eq. 1)."""

    kind: Literal["soft"]
    decay: Literal["exponential", "linear", "cosine", "polynomial", "sigmoid", "step"] = Field(
        default="exponential", description="the curve of the decay"
    )
    over: DurationText | None = Field(default=None, description="gone after so long; the whole retraining if absent")
    factor: float | None = Field(
        default=None, gt=0, lt=1, description="the factor x of every step, instead of `over` (exponential only)"
    )
    final: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        validate_default=True,
        description="share of the start at which a weight is cut to zero; 1e-6 if absent (exponential only)",
    )
    learns: bool = Field(default=False, description="whether the weights underneath the decaying mask go on learning")

    @field_validator("factor")
    @classmethod
    def _factor_is_exponential_and_alone(cls, factor: float | None, info: ValidationInfo) -> float | None:
        _check_exponential("factor", factor, info)
        if factor is not None and info.data.get("over") is not None:
            raise ValueError("found together with `over`, which says the same; keep one of the two")
        return factor

    @field_validator("final")
    @classmethod
    def _final_is_exponential(cls, final: float | None, info: ValidationInfo) -> float | None:
        _check_exponential("final", final, info)
        return 1e-6 if final is None and info.data.get("decay") == "exponential" else final


class GradualRemoval(Part):
    """A set that grows along a cubic ramp, chosen anew at each of its steps, gone at once (Zhu & Gupta, 2017)."""

    kind: Literal["gradual"]
    over: DurationText | None = Field(
        default=None, description="gone after so long; three quarters of the retraining if absent"
    )
    every: DurationText = Field(default=Duration(20, "steps"), description="the time between two steps of the ramp")


class GradualSoftRemoval(Part):
    """Like gradual, and what joins the set at a step of the ramp decays; it may leave the set until it is gone."""

    kind: Literal["gradual_soft"]
    over: DurationText | None = Field(
        default=None, description="all gone after so long; three quarters of the retraining if absent"
    )
    every: DurationText = Field(default=Duration(20, "steps"), description="the time between two steps of the ramp")
    cohort: DurationText | None = Field(
        default=None, description="what joins the set is gone after so long; a quarter of `over` if absent"
    )
    final: float = Field(default=1e-3, gt=0, lt=1, description="share of the start at which the last ones are cut")


class FilterRemoval(Part):
    """The lowest are zeroed (sfp: He, 2018) or lowered ever more (srfp: He, 2020) again and again, and may return."""

    kind: Literal["sfp", "srfp"]
    over: DurationText | None = Field(
        default=None, description="gone for good after so long; three quarters of the retraining if absent"
    )
    every: DurationText = Field(default=Duration(20, "steps"), description="the time between two choices")


class PenaltyRemoval(Part):
    """A penalty on what was chosen grows until it is cut (GReg-1; Wang, 2021)."""

    kind: Literal["greg"]
    over: DurationText | None = Field(
        default=None, description="gone after so long; three quarters of the retraining if absent"
    )
    ceiling: float = Field(
        default=0.05, gt=0, lt=1, description="the last penalty: the share of a weight that a step takes away"
    )


def _check_exponential(key: str, value: float | None, info: ValidationInfo) -> None:
    decay = info.data.get("decay", "exponential")
    if value is not None and decay != "exponential":
        raise ValueError(
            f"found {value}, and only the exponential decay has a `{key}`; remove the key (decay is {decay})"
        )


RemovalName = Literal["hard", "soft", "gradual", "gradual_soft", "sfp", "srfp", "greg"]
AnyRemoval = Annotated[
    HardRemoval | SoftRemoval | GradualRemoval | GradualSoftRemoval | FilterRemoval | PenaltyRemoval,
    Field(discriminator="kind"),
]
Removal = Annotated[AnyRemoval, BeforeValidator(_spelled_out, json_schema_input_type=RemovalName | AnyRemoval)]


def _min_keep_form(value: object) -> str:
    return "share" if isinstance(value, float) else "count"


MinKeep = Annotated[
    Annotated[Count, Tag("count")] | Annotated[float, Field(gt=0, lt=1), Tag("share")], Discriminator(_min_keep_form)
]


class Stage(Part):
    """One step of the plan: which parameters or nodes go, how many, and how."""

    target: Target = Field(description="which parameters or nodes: {nodes: latent} or {weights: [decoder.*]}")
    criterion: Criterion = Field(description="which of them go first: magnitude, random, lamp, skeletonization, ...")
    scope: Literal["global", "layer", "erk"] | None = Field(
        default=None,
        validate_default=True,
        description="rank weights over all targeted tensors together (global, if absent), in each (layer), "
        "or in each with a share by its shape (erk)",
    )
    sparsity: float = Field(ge=0, lt=1, description="share of the original target that goes, at least 0 and below 1")
    min_keep: MinKeep | None = Field(
        default=None, description="what every layer keeps at least: a number of entries, or a share between 0 and 1"
    )
    compensate: bool = Field(
        default=False, description="let the next layer make up for pruned nodes, by least squares from the kept ones"
    )
    removal: Removal = Field(description="how they go: hard, soft, gradual, gradual_soft, sfp, srfp or greg")
    retrain: Retraining | None = Field(
        default=None, validate_default=True, description="how the remaining parameters train; no retraining if absent"
    )

    @field_validator("criterion")
    @classmethod
    def _criterion_fits_the_target(cls, criterion: AnyCriterion, info: ValidationInfo) -> AnyCriterion:
        target = info.data.get("target")
        if isinstance(target, Weights) and isinstance(criterion, ForNodes):
            raise ValueError(f"{criterion.kind} ranks nodes, and the target is weights; use magnitude, or target nodes")
        if isinstance(target, Nodes) and isinstance(criterion, ForWeights):
            raise ValueError(
                f"{criterion.kind} ranks weights, and the target is nodes; use skeletonization, or target weights"
            )
        return criterion

    @field_validator("scope")
    @classmethod
    def _scope_is_for_weights(cls, scope: str | None, info: ValidationInfo) -> str | None:
        target = info.data.get("target")
        if scope is not None and isinstance(target, Nodes):
            raise ValueError(f"found {scope!r}, and nodes are ranked within their layer; remove the key")
        return "global" if scope is None and isinstance(target, Weights) else scope

    @field_validator("removal")
    @classmethod
    def _compensation_is_for_nodes_that_go_at_once(cls, removal: AnyRemoval, info: ValidationInfo) -> AnyRemoval:
        if info.data.get("compensate") and isinstance(info.data.get("target"), Weights):
            raise ValueError("compensate is for nodes, and the target is weights; remove the key")
        if info.data.get("compensate") and not isinstance(removal, HardRemoval):
            raise ValueError(
                f"compensate makes up for nodes that go at once, and {removal.kind} removal lets them go slowly; "
                "remove `compensate`, or use removal: hard"
            )
        return removal

    @field_validator("retrain")
    @classmethod
    def _retraining_fits(cls, retrain: Retraining | None, info: ValidationInfo) -> Retraining | None:
        removal = info.data.get("removal")
        if removal is not None and not isinstance(removal, HardRemoval):
            _check_removal_has_time(removal, retrain)
        if retrain and retrain.trainable == "adjacent" and isinstance(info.data.get("target"), Weights):
            raise ValueError(
                "trainable: adjacent is for nodes, and the target is weights; use all, or a list of patterns"
            )
        return retrain


def _check_removal_has_time(removal: Any, retrain: Retraining | None) -> None:
    if retrain is None or retrain.epochs == 0:
        raise ValueError(
            f"{removal.kind} removal happens during retraining; "
            "add `retrain` with at least 1 epoch, or use removal: hard"
        )
    if removal.over and removal.over.unit == "epochs" and removal.over.amount > retrain.epochs:
        raise ValueError(
            f"{retrain.epochs} epochs end before the removal does (over: {removal.over}); "
            "retrain for longer, or shorten `over`"
        )


# --- the recipe ----------------------------------------------------------------------------------------------------


class Benchmark(Part):
    """How the models are timed."""

    batch_sizes: SomeDistinct[Count] = Field(default=(1, 32), description="images per call")
    threads: Count = Field(default=1, description="threads of onnxruntime")


class Recipe(Part):
    """Which parameters go, how, and what is written."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")] = Field(
        description="letters, digits, _ and -, such as mnist_ae"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the initial weights, the batches' order and chance")
    model: Model = Field(description="the network: {name: autoencoder} or {factory: my_module:build}")
    data: Data = Field(
        description="the images: {name: mnist}, {npz: FILE}, {folder: DIR} or {factory: my_module:loaders}"
    )
    task: Task = Field(description="reconstruct (an autoencoder) or classify")
    train: Training | None = Field(
        default=None, description="how `compress train` trains the dense network; without it, bring a trained one"
    )
    stages: Listed[Stage] = Field(min_length=1, description="a list of what to prune, in order")
    export: Distinct[Literal["onnx", "safetensors", "pt2"]] = Field(
        default=("onnx", "safetensors", "pt2"), description="which files of the slim network are written"
    )
    benchmark: Benchmark = Field(default=Benchmark(), description="how the models are timed")

    @field_validator("data")
    @classmethod
    def _images_fit_the_model(
        cls, data: NamedData | NpzData | FolderData | FactoryData, info: ValidationInfo
    ) -> NamedData | NpzData | FolderData | FactoryData:
        wanted = getattr(info.data.get("model"), "image", None)
        if isinstance(data, NamedData) and wanted is not None and data.images[data.name] != wanted:
            raise ValueError(
                f"{data.name} has images of {list(data.images[data.name])}, and the model takes {list(wanted)}; "
                "use another model or data set, or set the model's `image`"
            )
        return data

    @field_validator("task")
    @classmethod
    def _task_fits_the_model(cls, task: Task, info: ValidationInfo) -> Task:
        model = info.data.get("model")
        if (able := getattr(model, "task", task)) != task:
            raise ValueError(
                f"found {task!r}, and the model {getattr(model, 'name', '')} can only {able}; use task: {able}"
            )
        return task


# What pydantic's error locations contain beside the recipe's own keys: which form of a union was taken.
FORMS: Final[Mapping[str, type[Part] | None]] = {
    "name model": None,
    "autoencoder": Autoencoder,
    "conv_autoencoder": ConvAutoencoder,
    "classifier": Classifier,
    "conv_classifier": ConvClassifier,
    "factory model": FactoryModel,
    "name data": NamedData,
    "npz data": NpzData,
    "folder data": FolderData,
    "factory data": FactoryData,
    "nodes target": Nodes,
    "weights target": Weights,
    "magnitude": Magnitude,
    "random": Random,
    "scaled_magnitude": ScaledMagnitude,
    "lamp": Lamp,
    "taylor": Gradient,
    "taylor_square": Gradient,
    "snip": Gradient,
    "obd": Obd,
    "skeletonization": Skeletonization,
    "norms": Norms,
    "variance": Variance,
    "ablation": Ablation,
    "principal_axes": PrincipalAxes,
    "hard": HardRemoval,
    "soft": SoftRemoval,
    "gradual": GradualRemoval,
    "gradual_soft": GradualSoftRemoval,
    "sfp": FilterRemoval,
    "srfp": FilterRemoval,
    "greg": PenaltyRemoval,
    "word": None,
    "patterns": None,
    "count": None,
    "share": None,
    # of JsonValue
    "dict": None,
    "list": None,
}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe as it is written, for editors; docs/recipe.schema.json holds it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
