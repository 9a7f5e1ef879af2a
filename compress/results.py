"""The contents of results.json of `compress apply`, as types.

docs/results.schema.json is generated from here (python docs/reference.py).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict, cast

from compress.errors import InputError
from compress.ranking import Better, IntervalMethod, MetricKind, default_of, kind_of, present
from compress.task_words import Word
from compress.typed_json import Limits, Schema, also, first_mistake, schema

Format = Literal["safetensors", "onnx", "pt2"]
ModelName = Literal["dense", "masked", "slim"]
ChoiceName = Literal["dense", "dense_int8", "slim", "slim_int8", "sparse"]
Runtime = Literal["onnxruntime", "torch"]
TargetKind = Literal["nodes", "weights", "branches"]
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
    "The loss, and under their names the other metrics of the task.",
    Limits(required=["loss"], properties={"accuracy": {"type": "number", "minimum": 0, "maximum": 1}}),
]


class Interval(TypedDict):
    """A 95 % interval, and how it was found.

    wilson: of a share of samples. bootstrap: percentiles of resamples of the test samples, or of batches for a task of
    the user's own. paired_bootstrap, agresti_min: of a difference between two networks on the same samples.
    """

    low: float
    high: float
    method: IntervalMethod


MetricErrors = Annotated[
    dict[str, Interval],
    "By metric, the sampling error: where the figure on all samples like the test samples may be. Metrics of which it "
    "is not known are absent.",
]
MetricChanges = Annotated[dict[str, Interval], "By metric, the sampling error of the metric minus the dense network's."]


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
    rank_by: NotRequired[str | None]
    better: NotRequired[Better | None]


class NamedTaskValues(TypedDict):
    name: Word
    metrics: NotRequired[list[str] | None]
    rank_by: NotRequired[str | None]
    ignore_index: NotRequired[int | None]
    label_smoothing: NotRequired[float]


@also(additionalProperties=True)
class RecipeStage(TypedDict):
    retrain: NotRequired[dict[str, object] | None]


class RivalValues(TypedDict):
    scratch: bool


@also(additionalProperties=True)
class RecipeValues(TypedDict):
    """The recipe with its defaults; recipe.schema.json describes it."""

    name: str
    seed: int
    model: dict[str, object]
    data: dict[str, object]
    dynamic: NotRequired[dict[str, dict[str, str]] | None]
    task: str | NamedTaskValues | OwnTaskValues
    train: dict[str, object] | None
    stages: list[RecipeStage]
    rivals: NotRequired[RivalValues]
    export: Annotated[
        list[str] | dict[str, dict[str, object]], "The files that were asked for, as a list or with their settings."
    ]
    quantize: NotRequired[dict[str, object] | None]
    benchmark: BenchmarkValues


class Machine(TypedDict):
    cpu: str
    threads: Annotated[Positive, "Of torch."]
    device: str
    processes: NotRequired[Annotated[int, Limits(minimum=2), "That trained together; absent where there was one."]]


@also(**{"if": {"properties": {"sha256": {"type": "string"}}}, "then": {"required": ["train", "test"]}})
class UsedData(TypedDict):
    name: str
    sha256: Annotated[
        Annotated[str, Limits(pattern="^[0-9a-f]{64}$")] | None,
        "Of the training samples, their labels (int64), the test samples and theirs, one after the other; null for "
        "loaders of the user's own.",
    ]
    shape: NotRequired[Annotated[Shape, "Of one input, channels first."]]
    train: NotRequired[Annotated[Positive, "Number of training samples; absent where loaders do not tell."]]
    test: NotRequired[Annotated[Positive, "Number of test samples; absent where loaders do not tell."]]
    validation: NotRequired[
        Annotated[Positive, "Number of samples that settings are chosen on; absent where there are none."]
    ]
    classes: NotRequired[Annotated[list[str], "The names of the classes, in the order of their numbers, if known."]]
    attributes: NotRequired[
        Annotated[
            dict[str, Positive], "The number of classes of each attribute beside the label; absent where there is none."
        ]
    ]
    mean: NotRequired[Annotated[Numbers, "Per channel: what is subtracted from images scaled to [0, 1]."]]
    std: NotRequired[Annotated[Numbers, "Per channel: what the result is divided by."]]
    note: NotRequired[Annotated[Text, "What a reader of the figures should know about the data."]]


# --- stages ---


class CurvePoints(TypedDict):
    span: Positive
    loss: Annotated[Numbers, "Mean training loss over the samples of the span."]
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
        "sampled_from": NotRequired[
            Annotated[
                Positive,
                "How many entries there are, if all figures here are of a random sample of them; absent where they are "
                "of all.",
            ]
        ],
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
    pruned: Annotated[Count, "Entries, nodes or branches that are pruned, those of earlier stages included."]
    of: Annotated[Positive, "Entries, nodes or branches of the target."]


class StageFigures(TypedDict):
    latent: NotRequired[Annotated[Text, "The layer whose remaining nodes were shaped; absent without `shape`."]]
    branches: NotRequired[
        Annotated[
            list[Text],
            "The residual branches that are removed, by the layers at their ends; absent for other targets.",
        ]
    ]
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
    epoch_losses: Annotated[list[float], "Mean training loss of each epoch, over its samples."]
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
    "Milliseconds of one run, by batch size; absent where no ONNX file was asked for.",
]


class Size(TypedDict):
    params: Positive
    nonzero: Annotated[Count, "Parameters that are not exactly 0.0."]
    macs: Annotated[Count, "Multiply-accumulates for one input; those with a stored zero count too."]


class Quality(TypedDict):
    metric: Metric
    error: NotRequired[MetricErrors]
    change: NotRequired[MetricChanges]


@also(**{"if": {"properties": {"bytes": {"required": ["onnx"]}}}, "then": {"required": ["latency_ms"]}})
class ModelResult(Size, Quality):
    bytes: FileSizes
    latency_ms: NotRequired[Latencies]


Models = Annotated[dict[ModelName, ModelResult], Limits(required=["dense", "masked", "slim"])]


# --- choices ---


class Agreement(TypedDict):
    """Outputs of an int8 file and of its float file on the same data: they are not equal, and nothing proves them."""

    equal: NotRequired[Annotated[Share, "Samples whose class is the same; for the task classify."]]
    largest: Annotated[NotNegative, "Absolute difference of any output."]
    mean: Annotated[NotNegative, "Absolute difference of an output."]


class QuantizationTrial(TypedDict):
    """A kind of quantization that was tried. One that failed has a note and no figures."""

    kind: Literal["static", "dynamic"]
    method: NotRequired[Annotated[Text, "Of calibration, for static."]]
    bytes: NotRequired[Positive]
    metric: NotRequired[Annotated[Metric, "On held-out samples: of the validation part, or of the training part."]]
    latency_ms: NotRequired[Annotated[dict[BatchSize, LatencyResult], "Its ratio is to the float file."]]
    note: NotRequired[Annotated[Text, "What failed."]]


class QuantizationResult(TypedDict):
    kind: NotRequired[Annotated[Literal["static", "dynamic"], "Absent where it was refused."]]
    method: NotRequired[Annotated[Text, "Of calibration, for static."]]
    per_channel: bool
    excluded: Annotated[list[Text], "Nodes of the graph that stay in float."]
    float_metric: Annotated[Metric, "Of the float file, on held-out samples."]
    tried: Annotated[list[QuantizationTrial], Limits(minItems=1)]
    why: Annotated[Text, "Why this one is kept, or none."]


@also(**{"if": {"required": ["refused"]}, "else": {"required": ["bytes", "metric"]}})
class Choice(TypedDict):
    """A file that you can deploy. A refused one has no figures; the float file is used instead."""

    runtime: Runtime
    bytes: NotRequired[Annotated[Positive, "Of the ONNX file, or else of the weights as safetensors."]]
    file: NotRequired[Annotated[Text, "In the folder of results; absent where it was measured only."]]
    metric: NotRequired[Annotated[Metric, "On the test data, as the runtime computes it for int8 and sparse."]]
    error: NotRequired[MetricErrors]
    change: NotRequired[MetricChanges]
    latency_ms: NotRequired[Latencies]
    peak_memory: NotRequired[
        Annotated[
            Count,
            "Bytes: the largest resident size of a fresh process while it runs the file at each batch size, without "
            "what it had after importing the runtime; absent where the system does not tell.",
        ]
    ]
    torch_dense_latency_ms: NotRequired[Annotated[Latencies, "Of the dense network in torch, for sparse."]]
    agreement: NotRequired[Agreement]
    quantization: NotRequired[QuantizationResult]
    refused: NotRequired[Annotated[Text, "Why there is no such file."]]


class Load(TypedDict):
    """What else the machine did while files were timed."""

    cores: Annotated[Positive, "Of the machine."]
    busy: Annotated[NotNegative, "How many of them other programs kept busy, on average."]


class Best(TypedDict):
    bound: Annotated[Text, "In words: what the choice is best at, and how far from dense it may be."]
    choice: ChoiceName


class Choices(TypedDict):
    """The files to choose from, and the best of them; absent in results of older versions."""

    choices: NotRequired[dict[ChoiceName, Choice]]
    best: NotRequired[Best]
    load: NotRequired[Annotated[Load, "Absent where nothing was timed, or where the system does not tell."]]


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


class ClassCounts(TypedDict):
    of: Annotated[
        Counts,
        "Test samples by class; pixels and the like, where each has one. With several labels, those with the label.",
    ]
    dense: Annotated[Counts, "Those that are predicted right."]
    slim: Annotated[Counts, "Those that are predicted right."]
    names: NotRequired[Annotated[list[Text], "Of the classes."]]


class ValueSample(TypedDict):
    """The first output, for test samples spread over the test set."""

    target: Numbers
    dense: Numbers
    slim: Numbers


class SeriesSample(TypedDict):
    number: Annotated[Count, "Of the test sample, from 0."]
    target: Annotated[Numbers, "Its first channel."]
    dense: Numbers
    slim: Numbers


class RocPoints(TypedDict):
    false_alarms: Annotated[Numbers, "The share of normal samples that a threshold takes for anomalies, rising."]
    found: Annotated[Numbers, "The share of anomalies that it finds."]
    auroc: Share


class Roc(TypedDict):
    dense: RocPoints
    slim: RocPoints


class Continuation(TypedDict):
    """A text of the test data, and the likeliest continuation by each network."""

    prompt: str
    dense: str
    slim: str


class Pictures(TypedDict):
    """The networks' outputs for test samples, where these can be shown."""

    by_class: NotRequired[Annotated[ClassCounts, "For classify, of at most 1,000 classes."]]
    values: NotRequired[Annotated[ValueSample, "For regress and forecast."]]
    series: NotRequired[Annotated[list[SeriesSample], Limits(minItems=1), "For forecast."]]
    roc: NotRequired[Annotated[Roc, "For anomaly."]]
    text: NotRequired[Annotated[Continuation, "For language_model, where the data can turn tokens into text."]]

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
            "Test samples by true class (row) and predicted class (column), for the task classify; absent where there "
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


# --- the input contract ---


class TensorContract(TypedDict):
    """A tensor that a file takes or gives."""

    name: Annotated[str, Limits(minLength=1)]
    dtype: Annotated[Text, "NumPy's name, such as float32; or bfloat16, which NumPy does not have."]
    shape: Annotated[
        list[Count | Text | None],
        'Of each dimension the size, or a name where it varies, such as "batch"; null where it varies in another way.',
    ]


class Contract(TypedDict):
    """What the files of the slim network take and give, and how a raw sample becomes an input.

    The same text is in the metadata of the files, under the key `contract`.
    """

    inputs: Annotated[list[TensorContract], Limits(minItems=1), "In the order of the network's arguments."]
    outputs: Annotated[list[TensorContract], Limits(minItems=1)]
    preparation: Annotated[
        dict[str, object] | None,
        "How a raw sample becomes an input: `kind` and what that kind needs. Null where loaders of the user's own "
        "prepare the samples, so that only their owner knows.",
    ]
    classes: Annotated[list[str] | None, "The names of the classes, in the order of the outputs; null if unknown."]
    opset: Annotated[Positive | None, "Of the ONNX file; null where none was written."]
    versions: Versions


OPSETS = (18, 25)
"""The first and the last opset that ONNX files are written in."""

CONTRACT = "contract"
"""The key of the contract in a file's metadata."""

UNKNOWN_PREPARATION = "The samples were prepared by loaders of their owner's; only the owner knows how."


def contract_text(contract: Contract) -> str:
    """The contract as every file has it: JSON in one line of ASCII, with sorted keys."""
    return json.dumps(contract, sort_keys=True, allow_nan=False)


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


class RankedBy(TypedDict):
    """The metric that decides between networks, and which of two figures is better."""

    name: Text
    better: Better


class RivalResults(TypedDict):
    """What the pruned network has to beat."""

    scratch: ScratchResult


class AgainstConstant(TypedDict):
    """How the slim network compares with the best output that does not depend on the input, such as the mean image."""

    output: Annotated[Text, "The constant output, in words; found on training samples."]
    verdict: Annotated[
        Literal["better", "no better", "dense no better", "not told"],
        "Of the slim network; or that the dense network itself is no better, or that it cannot be told.",
    ]
    metric: NotRequired[Annotated[Metric, "Of the constant output on the test samples."]]
    kept: NotRequired[
        Annotated[
            dict[str, float],
            "By metric: the share of the dense network's lead over the constant output that slim has kept.",
        ]
    ]
    why: NotRequired[Annotated[Text, "Why it cannot be told."]]


class ProbeResult(TypedDict):
    """Accuracies on the test samples of classifiers trained on the codes of the training samples."""

    linear: Share
    two_layer: Annotated[Share, "With a hidden layer of 128 units."]


class LatentCodes(TypedDict):
    layer: Annotated[Text, "Whose outputs are the codes."]
    nodes: Annotated[Positive, "Its nodes; in the slim network, those that remain."]


class ShapedAttribute(TypedDict):
    name: Text
    aim: Annotated[Literal["keep", "drop"], "Whether the remaining nodes were to hold the attribute or not."]
    weight: Annotated[AboveZero, "Of its term in the loss."]
    classes: Annotated[int, Limits(minimum=2)]
    chance: Annotated[Share, "The share of its most frequent class among the test samples."]
    dense: ProbeResult
    slim: ProbeResult


class ShapedLatent(TypedDict):
    """What a latent space holds before the first stage and after the last one, by fresh probes on frozen codes."""

    stage: Annotated[Positive, "Whose `shape` it was, from 1."]
    dense: LatentCodes
    slim: LatentCodes
    attributes: Annotated[list[ShapedAttribute], Limits(minItems=1)]


class OptionalOutcome(TypedDict):
    latents: NotRequired[
        Annotated[list[ShapedLatent], Limits(minItems=1), "Absent where no stage shapes a latent space."]
    ]
    constant: NotRequired[Annotated[AgainstConstant, "Absent in results of older versions."]]
    rivals: NotRequired[Annotated[RivalResults, "Absent where the recipe names none."]]
    weights: NotRequired[
        Annotated[Text, "What was unwrapped and left out of the file of the dense network; absent where nothing was."]
    ]


WarningKind = Literal[
    "layer_loss",
    "bottleneck",
    "short_decay",
    "late_decay",
    "short_retraining",
    "large_batch",
    "known_data",
    "constant_output",
    "chance",
    "no_effect",
    "refused",
    "scratch_wins",
    "early_removal",
    "traced_graph",
    "training_only",
    "no_proof",
    "unusable_cells",
    "lost_cluster",
    "other",
]


class Warned(TypedDict):
    """A warning of a command, as it is on the terminal and at the top of the report."""

    kind: Annotated[
        WarningKind,
        "layer_loss: a layer loses more than 90 %. bottleneck: a width is below the number of classes or the next "
        "bottleneck. short_decay, late_decay: of fewer than 20 steps, or until the training ends. short_retraining: "
        "fewer steps than layers. large_batch: larger than the data. known_data: a bound is judged on data that the "
        "network was trained on. constant_output, chance: the slim or the dense network is no better than a constant "
        "output. other: of another package.",
    ]
    text: Text
    way_out: NotRequired[Text]
    where: NotRequired[Annotated[Text, "The place in the recipe."]]


class Outcome(OptionalOutcome):
    """What a run has measured before its files are written."""

    stages: Annotated[list[StageResult], Limits(minItems=1)]
    evaluated: NotRequired[
        Annotated[
            EvaluatedData, "What dense, masked and slim were evaluated on, each of them the same: else the run fails."
        ]
    ]
    parity: Annotated[Parity, "Largest absolute differences of outputs; a file that was not written has none."]
    warnings: Annotated[list[Warned | Text], "A text alone in results of older versions."]


class Results(Origin, Outcome, Choices, Pictures):
    """Version 1. Losses and accuracies are of the test samples and, unless they say otherwise, after removal."""

    contract: NotRequired[Annotated[Contract, "Absent in results of older versions."]]
    models: Models
    ranked_by: NotRequired[Annotated[RankedBy, "Absent in results of older versions: the accuracy, or else the loss."]]
    tensors: NotRequired[Annotated[list[TensorResult], "Every parameter, module by module."]]
    timing: Annotated[WallTime, "Seconds of wall time since the command began."]


def ranked_by(results: Results) -> MetricKind:
    """The metric that decides between networks."""
    found = results.get("ranked_by")
    if found is None:
        return default_of(results["models"]["dense"]["metric"])
    return present(kind_of(found["name"], found["better"]), results["models"]["dense"]["metric"])


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
