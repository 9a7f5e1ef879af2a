"""The contents of results.json of `compress apply`, as types.

docs/results.schema.json is generated from here (python docs/reference.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict, cast

from compress.errors import InputError
from compress.typed_json import Limits, Schema, also, first_mistake, schema

Format = Literal["safetensors", "onnx", "pt2"]
ModelName = Literal["dense", "masked", "slim"]
TargetKind = Literal["nodes", "weights"]
Measure = Literal["sparsity", "params", "macs"]
When = Literal["before_removal", "after_removal"]

Count = Annotated[int, Limits(minimum=0)]
Positive = Annotated[int, Limits(minimum=1)]
Share = Annotated[float, Limits(minimum=0, maximum=1)]
NotNegative = Annotated[float, Limits(minimum=0)]
AboveZero = Annotated[float, Limits(exclusiveMinimum=0)]
Text = Annotated[str, Limits(minLength=1)]
Shape = list[Count]
Counts = Annotated[list[Count], Limits(minItems=1)]
Numbers = Annotated[list[float], Limits(minItems=1)]

Metric = Annotated[
    dict[str, float],
    "Losses, accuracies, and under their names the metrics of a task of the user's own.",
    Limits(required=["loss"], properties={"accuracy": {"type": "number", "minimum": 0, "maximum": 1}}),
]

Versions = Annotated[dict[str, str], Limits(required=["python", "softprune", "torch", "onnx", "onnxruntime"])]


@also(additionalProperties=True)
class KindEntry(TypedDict):
    """A criterion or a removal with its settings, as recipe.schema.json has them."""

    kind: str


@also(additionalProperties=True)
class RemovalEntry(KindEntry):
    decay: NotRequired[str]


class BenchmarkValues(TypedDict):
    batch_sizes: list[Positive]
    threads: Positive


class OwnTaskValues(TypedDict):
    loss: str
    metrics: dict[str, str]
    target: Literal["label", "image"]


@also(additionalProperties=True)
class RecipeStage(TypedDict):
    retrain: NotRequired[dict[str, object] | None]


@also(additionalProperties=True)
class RivalValues(TypedDict):
    scratch: bool


class RecipeValues(TypedDict):
    """The recipe with its defaults; recipe.schema.json describes it."""

    name: str
    seed: int
    model: dict[str, object]
    data: dict[str, object]
    dynamic: NotRequired[dict[str, dict[str, str]] | None]
    task: str | OwnTaskValues
    train: dict[str, object] | None
    stages: list[RecipeStage]
    rivals: NotRequired[RivalValues]
    export: list[str]
    benchmark: BenchmarkValues


class Machine(TypedDict):
    cpu: str
    threads: Annotated[Positive, "Of torch."]
    device: str
    processes: NotRequired[Annotated[int, Limits(minimum=2), "That trained together; absent where there was one."]]


@also(**{"if": {"properties": {"sha256": {"type": "string"}}}, "then": {"required": ["train", "test", "mean", "std"]}})
class UsedData(TypedDict):
    name: str
    sha256: Annotated[
        Annotated[str, Limits(pattern="^[0-9a-f]{64}$")] | None,
        "Of training images, training labels (int64), test images and test labels, one after the other; null for "
        "loaders of the user's own.",
    ]
    shape: NotRequired[Annotated[Shape, "Of one input, channels first."]]
    train: NotRequired[Annotated[Positive, "Number of training images; absent where loaders do not tell."]]
    test: NotRequired[Annotated[Positive, "Number of test images; absent where loaders do not tell."]]
    mean: NotRequired[Annotated[Numbers, "Per channel, of the training images scaled to [0, 1]."]]
    std: NotRequired[Annotated[Numbers, "Per channel, of the training images scaled to [0, 1]."]]
    note: NotRequired[Annotated[Text, "What a reader of the figures should know about the data."]]


# --- stages ---


class CurvePoints(TypedDict):
    span: Positive
    loss: Annotated[Numbers, "Mean training loss of the span."]
    factor: NotRequired[
        Annotated[
            Numbers, "What all pruned entries are multiplied by at its end; absent where each has a factor of its own."
        ]
    ]
    share: NotRequired[Annotated[Numbers, "At its end: how much of what is pruned has been chosen, in [0, 1]."]]


Histogram = TypedDict(
    "Histogram",
    {
        "of": NotRequired[Annotated[Text, "The tensor or layer; absent where all targets were ranked together."]],
        "scale": Annotated[
            Literal["linear", "log"],
            "On which the bins are of equal width; the first of a log scale has all lower scores too.",
        ],
        "from": float,
        "to": float,
        "kept": Annotated[Counts, "By bin, what is kept."],
        "gone": Annotated[Counts, "By bin, what is pruned."],
        "threshold": NotRequired[Annotated[float, "The highest score that is pruned; absent where nothing is."]],
        "earlier": Annotated[Count, "How many had been pruned before, and are in no bin."],
    },
)


class Taken(TypedDict):
    """Of what, how, and how much a stage prunes."""

    kind: TargetKind
    target: Annotated[Text, "Layers or patterns, as the recipe has them."]
    criterion: KindEntry
    removal: RemovalEntry
    measure: Annotated[
        Measure,
        "What is asked for: the share of the target that is pruned, or of the network's parameters or multiply-adds "
        "that is left.",
    ]
    asked: Annotated[Share, "In that measure."]
    achieved: Annotated[Share, "In that measure; a sparsity is pruned / of."]
    pruned: Annotated[Count, "Entries or nodes that are pruned, those of earlier stages included."]
    of: Annotated[Positive, "Entries or nodes of the target."]


class StageFigures(TypedDict):
    curve: NotRequired[
        Annotated[
            CurvePoints,
            "The retraining in at most 400 points, each of a span of equal length (the last may be shorter); absent "
            "where there is none.",
        ]
    ]
    scores: NotRequired[
        Annotated[
            list[Histogram],
            Limits(minItems=1),
            "Of the 24 largest groups that were ranked together, after the first complete selection; absent "
            "where the criterion measures nothing (random, principal_axes).",
        ]
    ]


class StageResult(Taken, StageFigures):
    before_removal: Annotated[Metric, "Just before the last of what is pruned became exactly zero."]
    after_removal: Annotated[Metric, "At the end of the stage."]
    steps: Annotated[Count, "Optimizer steps of the retraining."]
    removal_steps: Annotated[Count, "Steps until what is pruned was exactly zero; 0 for hard removal."]
    epoch_losses: Annotated[list[float], "Mean training loss of each epoch."]
    seconds: Annotated[NotNegative, "Of the retraining."]


# --- models ---

FileKind = Literal["safetensors", "safetensors_gzip", "onnx", "onnx_gzip", "pt2", "pt2_gzip"]
ZIPPED: Mapping[Format, FileKind] = {"safetensors": "safetensors_gzip", "onnx": "onnx_gzip", "pt2": "pt2_gzip"}

FileSizes = Annotated[
    dict[FileKind, Positive],
    "Of the files; a format that was not asked for is absent.",
    Limits(dependentRequired={plain: [zipped] for plain, zipped in ZIPPED.items()}),
]


class LatencyResult(TypedDict):
    p50: AboveZero
    p90: AboveZero
    p99: AboveZero
    min: AboveZero
    runs: Positive
    quantiles: NotRequired[
        Annotated[
            list[AboveZero],
            Limits(minItems=21, maxItems=21),
            "From the shortest run to the longest, in 20 steps of 5 %.",
        ]
    ]
    ratio: Annotated[AboveZero, "To the dense network: the median over the rounds of (median / median)."]


BatchSize = Annotated[str, Limits(pattern="^[1-9][0-9]*$")]
Latencies = Annotated[
    dict[BatchSize, LatencyResult],
    Limits(minProperties=1),
    "Milliseconds of one run under onnxruntime, by batch size; absent where no ONNX file was asked for.",
]


class Size(TypedDict):
    params: Positive
    nonzero: Annotated[Count, "Parameters that are not exactly 0.0."]
    macs: Annotated[Count, "Multiply-accumulates for one input; those with a stored zero count too."]


@also(**{"if": {"properties": {"bytes": {"required": ["onnx"]}}}, "then": {"required": ["latency_ms"]}})
class ModelResult(Size):
    metric: Metric
    bytes: FileSizes
    latency_ms: NotRequired[Latencies]


Models = Annotated[dict[ModelName, ModelResult], Limits(required=["dense", "masked", "slim"])]


class TensorResult(TypedDict):
    name: Text
    shape: Annotated[Shape, "In dense and masked."]
    zeros: Annotated[Count, "In masked: entries that are exactly 0.0."]
    slim: NotRequired[Annotated[Shape, "Its shape in slim; absent where slim has no such parameter."]]


# --- test images ---

Png = Annotated[str, Limits(pattern="^[A-Za-z0-9+/]+=*$"), "A PNG file in base64, of 64 pixels a side at most."]
Matrix = Annotated[list[Counts], Limits(minItems=1)]


class ImageLosses(TypedDict):
    dense: NotNegative
    slim: NotNegative


class ImageResult(TypedDict):
    number: Annotated[Count, "Of the test image, from 0."]
    input: Png
    dense: Png
    slim: Png
    loss: Annotated[ImageLosses, "Mean squared error per pixel of this image."]


class Confusion(TypedDict):
    dense: Matrix
    slim: Matrix


class Pictures(TypedDict):
    """The networks' outputs for test images, where these can be shown."""

    images: NotRequired[
        Annotated[
            list[ImageResult],
            Limits(minItems=1),
            "A few test images, spread over the test set, and what the networks make of them, for the task "
            "reconstruct; absent where targets are not images in [0, 1].",
        ]
    ]
    confusion: NotRequired[
        Annotated[
            Confusion,
            "Test images by true class (row) and predicted class (column), for the task classify; absent where there "
            "are more than 20 classes.",
        ]
    ]


# --- the whole ---


class Parity(TypedDict):
    masked_vs_slim: NotNegative
    slim_vs_onnx: NotRequired[NotNegative]
    slim_vs_pt2: NotRequired[NotNegative]
    fresh_process: NotRequired[
        Annotated[
            dict[str, NotNegative],
            "By file: the largest difference from its network when it was read back in a fresh process, by onnxruntime "
            "alone, torch alone, or with a newly built network.",
        ]
    ]
    inputs: Annotated[Positive, "How many inputs masked and slim were compared on."]
    tolerance: Annotated[AboveZero, "Relative to how much an output varies over the inputs."]
    precision: NotRequired[Annotated[Text, "What decided about masked and slim: the network's dtype, or float64."]]
    constant: NotRequired[
        Annotated[
            list[Text], "Outputs that do not depend on the inputs beyond the tolerance: the proof says nothing of them."
        ]
    ]


class WallTime(TypedDict):
    total: NotNegative
    training_share: Share
    phases: Annotated[dict[str, NotNegative], "Every moment is charged to exactly one of them."]


class Origin(TypedDict):
    """What was run, on what, and by what."""

    schema: Literal[1]
    recipe: RecipeValues
    seed: Count
    versions: Annotated[Versions, "Of python, this package and those that the figures depend on."]
    machine: Machine
    data: UsedData


class EvaluatedData(TypedDict):
    samples: Positive
    digest: Annotated[
        str,
        Limits(pattern="^[0-9a-f]{64}$"),
        "Sum, modulo 2^256, of the BLAKE2b hashes (256 bits) of each sample's input and target as the networks are "
        "given them; it does not depend on their order.",
    ]


# --- rivals ---


ScratchLength = Literal["total", "retraining"]


class Advantage(TypedDict):
    """Absent where there are fewer than three test samples, or batches of a task of the user's own."""

    ahead: NotRequired[
        Annotated[float, "The slim network's mean advantage per test sample, in accuracy or loss; negative: it loses."]
    ]
    noise: NotRequired[
        Annotated[NotNegative, "Twice the standard error of `ahead`, which is paired over the test samples."]
    ]
    better: NotRequired[
        Annotated[Literal["slim", "scratch", "neither"], "Which is ahead by more than the noise of the test samples."]
    ]


class ScratchRun(Advantage):
    """The slim network's shape, trained from random weights and evaluated like the slim network."""

    epochs: Positive
    steps: Annotated[Count, "That were done."]
    seconds: Annotated[NotNegative, "Of the training."]
    metric: NotRequired[Metric]
    diverged: NotRequired[Annotated[Text, "Instead of the metric, how its training diverged."]]


class ScratchResult(TypedDict):
    total: NotRequired[Annotated[ScratchRun, "As many epochs as the dense training and the retraining together."]]
    retraining: NotRequired[Annotated[ScratchRun, "As many epochs as the retraining."]]
    missing: NotRequired[Annotated[Text, "Why one of the two runs, or both, are absent."]]


class RivalResults(TypedDict):
    """What the pruned network has to beat."""

    scratch: ScratchResult


class RivalsOutcome(TypedDict):
    rivals: NotRequired[Annotated[RivalResults, "Absent where the recipe names none."]]


class Outcome(RivalsOutcome):
    """What a run has measured before its files are written."""

    stages: Annotated[list[StageResult], Limits(minItems=1)]
    evaluated: NotRequired[
        Annotated[
            EvaluatedData, "What dense, masked and slim were evaluated on, each of them the same: else the run fails."
        ]
    ]
    parity: Annotated[Parity, "Largest absolute differences of outputs; a file that was not written has none."]
    warnings: list[Text]


class Results(Origin, Outcome, Pictures):
    """Version 1. Losses and accuracies are of the test images and, unless they say otherwise, after removal."""

    models: Models
    tensors: NotRequired[Annotated[list[TensorResult], "Every parameter, module by module."]]
    timing: Annotated[WallTime, "Seconds of wall time since the command began."]


def json_schema() -> Schema:
    """The JSON schema of results.json; docs/results.schema.json holds it."""
    return schema(Results, "results.json of `compress apply`")


def checked(document: object, file: Path) -> Results:
    """The document that was read from `file`, if it is a results.json.

    Raises:
        InputError: a key is missing, or a value is not what it should be.
    """
    if (mistake := first_mistake(document, Results)) is not None:
        raise InputError(f"{file} is damaged: {mistake}; run `compress apply` again")
    return cast(Results, document)
