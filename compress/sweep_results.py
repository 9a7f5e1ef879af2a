"""The contents of results.json of compare, sensitivity and search, and of their cells, as types."""

from typing import Literal, NotRequired, TypedDict, final

from compress.ranking import Written
from compress.results import KindEntry, Machine, Measure, Metric, ScratchLength, Size, TargetKind, Warned


class SweptRecipe(TypedDict):
    name: str
    model: dict[str, object]
    data: dict[str, object]
    task: object


class ComparedMetric(Written):
    """What ranks, and the unit of its figures in tables."""

    unit: str


class SweepData(TypedDict):
    name: str
    sha256: str | None
    train: int | None
    test: int | None
    validation: NotRequired[int]


class SweepOrigin(TypedDict):
    """What a sweep ran on, and with what.

    held_out: the share of the training samples that choices use; 0 where they use a validation part. warnings: absent
    in results of older versions.
    """

    schema: Literal[1]
    recipe: SweptRecipe
    metric: ComparedMetric
    versions: dict[str, str]
    machine: Machine
    data: SweepData
    held_out: float
    warnings: NotRequired[list[Warned]]


class Cached(TypedDict, total=False):
    """What the cache adds to the result of a cell."""

    key: str
    seconds: float


# --- compare ---


class ComparedCell(Cached):
    """The dense network's metric, or the result of pruning, or how training diverged."""

    dense: NotRequired[Metric]
    diverged: NotRequired[str]
    achieved: NotRequired[float]
    before_removal: NotRequired[Metric]
    after_removal: NotRequired[Metric]
    steps: NotRequired[int]
    removal_steps: NotRequired[int]


class ComparedDense(ComparedCell):
    model: str
    sha256: str
    value: float


class ComparedRun(ComparedCell):
    """stage: as the recipe would have it. value: of the metric that is compared; null where training diverged."""

    rival: str
    sparsity: float
    lr: float | None
    seed: int
    value: float | None
    stage: dict[str, object]


Way = Literal["removal", "criterion", "scope"]


class RivalNames(TypedDict):
    """scratch: of a rival that prunes nothing, how long its shape is trained from random weights."""

    name: str
    removal: str
    criterion: str
    scope: str
    scratch: NotRequired[ScratchLength]


class RivalFigures(TypedDict):
    """Over the seeds; no mean where a seed diverged, and no deviation (sd) of a single one."""

    lr: float | None
    diverged: int
    mean: float | None
    sd: float | None


class ComparedLevel(TypedDict):
    """best: the rival that beats the second-best beyond the noise; p: of that comparison, where there is one."""

    sparsity: float
    best: str | None
    p: float | None
    rivals: dict[str, RivalFigures]


class ComparedGrid(TypedDict):
    """The grid of a comparison."""

    stage: int
    pruned: TargetKind
    seeds: list[int]
    measure: Measure
    sparsities: list[float]
    rates: list[float | None]
    rivals: list[RivalNames]


class ComparedRuns(SweepOrigin, ComparedGrid):
    dense: list[ComparedDense]
    tuning: list[ComparedRun]
    cells: list[ComparedRun]


class Comparison(ComparedRuns):
    levels: list[ComparedLevel]


# --- sensitivity ---

QualityKind = Literal["loss", "drop"]
"""A bound on the loss, or on what is lost of the metric that ranks."""

BoundKind = Literal["loss", "drop", "params", "macs", "latency"]


class LayerPoint(TypedDict):
    """A layer at one sparsity; no metric where the loss is not finite."""

    sparsity: float
    left: int
    metric: Metric | None


class ShownLayerPoint(LayerPoint):
    value: float | None


class LayerCurve(Cached):
    size: int
    curve: list[LayerPoint]


class AllTogether(Cached):
    """The sparsity of each layer, the metric with all of them, and the loss that each of them alone may cause."""

    shares: dict[str, float]
    metric: Metric | None
    alone: float


class SensitiveLayer(TypedDict):
    name: str
    size: int
    share: float
    curve: list[ShownLayerPoint]
    key: str
    seconds: float


class Tolerance(TypedDict):
    text: str
    kind: BoundKind
    limit: float


class DenseValue(TypedDict):
    metric: Metric
    value: float


class Together(TypedDict):
    sparsity: float
    alone: float
    metric: Metric | None
    key: str


class Sensitivity(SweepOrigin):
    """knee: how many nodes are left where the loss bends, of a single layer of nodes."""

    stage: int
    target: str
    criterion: KindEntry
    pruned: TargetKind
    seed: int
    tolerated: Tolerance
    dense: DenseValue
    knee: int | None
    layers: list[SensitiveLayer]
    together: Together


# --- search ---

SizeKind = Literal["params", "nonzero", "macs", "latency"]
Goal = Literal["smallest", "best", "knee"]


class TrialLatency(TypedDict):
    """Milliseconds of both networks at a batch size, and how many times as long the slim one takes."""

    batch: int
    ratio: float
    dense: float
    slim: float


class TrialStage(TypedDict):
    achieved: float
    pruned: int
    of: int
    steps: int


class TrialNetwork(Size, Cached):
    """The slim network of a trial."""

    metric: Metric
    stages: list[TrialStage]
    latency: NotRequired[TrialLatency]


class TrialFailure(Cached):
    """Why a trial has no network: training diverged, or a level cannot be reached."""

    failed: str


@final
class FoundNetwork(TrialNetwork):
    pass


@final
class FoundFailure(TrialFailure):
    pass


TrialResult = FoundNetwork | FoundFailure


class ValuedNetwork(TrialNetwork):
    """value: of the metric that is bounded."""

    value: float


class TrialNumber(TypedDict):
    """levels: of the stages. front: whether no other trial beats it in both size and quality."""

    number: int
    levels: list[float]
    title: str
    holds: bool
    front: bool


@final
class TriedNetwork(TrialNumber, ValuedNetwork):
    pass


@final
class TriedFailure(TrialNumber, TrialFailure):
    pass


SearchTrial = TriedNetwork | TriedFailure


class SearchBound(TypedDict):
    kind: BoundKind
    text: str
    limit: float


class SizeTried(TypedDict):
    """A size of a single layer of nodes, and its loss."""

    left: int
    trial: int
    loss: float


class Knee(TypedDict):
    left: int
    trial: int


class Winner(Size):
    """Trained on all training samples, and measured on the test samples."""

    trial: int
    levels: list[float]
    dense_test: Metric
    test: Metric
    latency: NotRequired[TrialLatency]
    key: str


class Search(SweepOrigin):
    """front: numbers of trials. size, quality: what is weighed against each other."""

    seed: int
    goal: Goal
    bounds: list[SearchBound]
    size: SizeKind
    quality: QualityKind
    dense: ValuedNetwork
    trials: list[SearchTrial]
    front: list[int]
    curve: list[SizeTried]
    knee: Knee | None
    winner: Winner | None
