"""The JSON documents of train, export, bench, plan and inspect, as types."""

from typing import Literal, NotRequired, TypedDict

from compress.results import (
    Agreement,
    Contract,
    LatencyResult,
    Load,
    Metric,
    MetricErrors,
    QuantizationResult,
    RecipeValues,
    Runtime,
    Shape,
    Size,
    Taken,
    UsedData,
    Warned,
)

# --- train, export, bench ---


class TrainedNetwork(TypedDict):
    model: str
    data: UsedData
    steps: int
    seconds: float
    epoch_losses: list[float]
    metric: Metric
    error: NotRequired[MetricErrors]


class ExportedFile(TypedDict):
    """A file that was written; its outputs' largest difference from torch's, or that its weights are rounded."""

    bytes: int
    difference: NotRequired[float]
    rounded: NotRequired[bool]


class Exported(TypedDict):
    files: dict[str, ExportedFile]


class LoadEntry(TypedDict):
    """Absent where the system does not tell."""

    load: NotRequired[Load]


class Timed(LoadEntry):
    """Latency by model and batch size; ratios are to one of the models, whatever runs it."""

    threads: int
    runtimes: dict[str, Runtime]
    models: dict[str, dict[str, LatencyResult]]


class QuantizedFile(TypedDict):
    """The result of `quantize`. If the float file is kept, `refused` says why."""

    source: str
    source_bytes: int
    file: NotRequired[str]
    bytes: NotRequired[int]
    agreement: NotRequired[Agreement]
    quantization: QuantizationResult
    refused: NotRequired[str]


# --- plan ---


class NetworkSize(Size):
    """bytes: of the tensors."""

    bytes: int


class KeptWidth(TypedDict):
    """A layer whose nodes cannot be pruned."""

    layer: str
    reason: str


class MatchedTarget(TypedDict):
    """What a stage prunes of one parameter or of coupled layers; earlier stages have pruned `earlier` of it."""

    name: str
    of: int
    goes: int
    earlier: int
    layers: NotRequired[list[str]]


class ChosenBy(TypedDict):
    """samples: how many the criterion looked at. again: whether the removal chooses more than once."""

    by: Literal["criterion", "even scores"]
    samples: int | None
    again: bool


class StageSeconds(TypedDict):
    training: float
    selection: float
    evaluation: float
    total: float
    timed_steps: int


class PlannedShape(TypedDict):
    """The attributes that the remaining nodes of `layer` are to hold, or not, with their weights and their classes."""

    layer: str
    keep: dict[str, float]
    drop: dict[str, float]
    classes: dict[str, int]


class RehearsedStage(Taken):
    matched: list[MatchedTarget]
    chosen: ChosenBy
    steps: int
    steps_per_epoch: int
    removal_steps: int


class PlannedStage(RehearsedStage):
    """shape: None where the stage shapes no latent space."""

    shape: PlannedShape | None
    after: NetworkSize
    seconds: StageSeconds


class PlanSeconds(TypedDict):
    """rivals: what the recipe's rivals take at most; absent where there are none, or no training was timed."""

    stages: float
    rivals: NotRequired[float]
    closing: float
    total: float
    without: str


class InputRange(TypedDict):
    """One input of the network, in the first batch; infinities, as of masks, are left out."""

    name: str
    min: float
    max: float
    mean: float


class Constant(TypedDict):
    """The best output that does not depend on the input, such as the mean image, in words, and what it has."""

    output: str
    metric: Metric


class Measured(TypedDict):
    """The dense network on `samples` of the `of` test samples, which loaders do not tell.

    constant: on the same samples; absent where there is none.
    preparation: how a raw sample becomes an input; absent where only the user's own loaders know it.
    """

    metric: Metric
    samples: int
    of: NotRequired[int]
    inputs: list[InputRange]
    constant: NotRequired[Constant]
    preparation: NotRequired[dict[str, object]]


class Plan(TypedDict):
    """dense: absent without weights."""

    recipe: str
    model: str | None
    seed: int
    data: UsedData
    dense: NotRequired[Measured]
    now: NetworkSize
    stages: list[PlannedStage]
    kept: list[KeptWidth]
    seconds: PlanSeconds
    warnings: list[Warned]


# --- inspect ---


class FileTensor(TypedDict):
    """Rows are along the first dimension and columns along the second; absent where there is one dimension."""

    name: str
    shape: Shape
    dtype: str
    entries: int
    zeros: int
    zero_rows: NotRequired[int]
    zero_columns: NotRequired[int]


class FileLayer(TypedDict):
    """shape: of the largest tensor. weights: entries that can be pruned one by one. rows, columns: of all matrices."""

    name: str
    tensors: list[str]
    shape: Shape
    entries: int
    zeros: int
    weights: int
    rows: int
    zero_rows: int
    columns: int
    zero_columns: int
    macs: NotRequired[int]


class PrunableNodes(TypedDict):
    """cuttable: those that `slim` would cut out of the file as it is."""

    name: str
    layers: list[str]
    nodes: int
    cuttable: int


class FileNodes(TypedDict):
    prunable: list[PrunableNodes]
    kept: list[KeptWidth]


class FileBranches(TypedDict):
    """Residual branches by the layers at their ends. zero: those that `slim` would take out of the file as it is."""

    prunable: list[str]
    zero: list[str]
    kept: list[KeptWidth]


class FileRecipe(TypedDict):
    brief: str
    whole: str
    values: RecipeValues


class FileInput(TypedDict):
    """An input of an ONNX file; sizes that vary are shown by their names."""

    name: str
    shape: list[int | str]
    dtype: str


class LookedInto(TypedDict, total=False):
    """Keys that not every file has; `note` says why nodes and macs are missing where there should be some, `branches`
    is there for networks with residual connections, `graph` has the limits of a slim network that is a traced graph,
    and `inputs` what an ONNX file takes."""

    inputs: list[FileInput]

    nodes: FileNodes
    branches: FileBranches
    macs: int
    note: str
    graph: str
    recipe: FileRecipe
    contract: Contract


class FileContents(LookedInto):
    file: str
    format: str
    bytes: int
    entries: int
    zeros: int
    layers: list[FileLayer]
    tensors: list[FileTensor]
    metadata: dict[str, str]
