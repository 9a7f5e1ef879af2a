"""The content of page.html: text and figures, ready to insert."""

from collections.abc import Mapping
from typing import TypedDict

from markupsafe import Markup

from compress.report.choices import ChoiceTable
from compress.report.measures import Change, Measure
from compress.results import ImageResult


class Tile(TypedDict):
    """A figure of the first screen; error and unit are "" where there is none."""

    label: str
    before: str
    after: str
    error: str
    unit: str
    change: Change


class TrainingFigure(TypedDict):
    """The figure for wide and for narrow screens, and the entries of its legend."""

    wide: Markup
    narrow: Markup
    factor: bool
    share: bool
    span: int
    decay: bool
    dense: bool
    distilled: bool


class ScoresFigure(TypedDict):
    """of: the tensor or layer; None if all targets were ranked together. earlier: how many were pruned before.

    sampled_from: of how many entries the figure shows a sample; None if it shows all.
    """

    of: str | None
    earlier: int
    sampled_from: int | None
    svg: Markup


class LatentRow(TypedDict):
    """dense, slim: what a linear and a two-layer probe find."""

    name: str
    aim: str
    weight: str
    chance: str
    dense: tuple[str, str]
    slim: tuple[str, str]


class LatentFigure(TypedDict):
    """dense, slim: which codes were probed."""

    stage: int
    dense: str
    slim: str
    rows: list[LatentRow]


class StageScores(TypedDict):
    number: int
    criterion: str
    kind: str
    figures: list[ScoresFigure]


class TensorRow(TypedDict):
    """share: of zeros, in percent."""

    name: str
    entries: int
    zeros: int
    share: str
    shape: str
    slim: str
    changed: bool


class ConfusionFigure(TypedDict):
    model: str
    svg: Markup
    classes: int


class SampleFigure(TypedDict):
    svg: Markup
    caption: str


class ClassRow(TypedDict):
    """change: of the share that is right."""

    name: str
    of: int
    dense: int
    slim: int
    change: Change


class LatencyFigure(TypedDict):
    batch: str
    runs: int
    svg: Markup


class ParityRows(TypedDict):
    rows: list[tuple[str, str]]
    inputs: int
    tolerance: str


class ContractFigure(TypedDict):
    """text: as the files have it; None where it is too long to be shown."""

    lines: list[str]
    text: str | None


class Content(TypedDict):
    """warnings: what was found, and the way out."""

    name: str
    style: Markup
    headline: str
    deck: str
    tiles: list[Tile]
    conditions: list[str]
    note: str | None
    warnings: list[tuple[str, str]]
    choices: ChoiceTable
    facts: list[str]
    measures: list[Measure]
    rivals: list[str]
    stages: list[tuple[str, list[str]]]
    training: TrainingFigure | None
    latents: list[LatentFigure]
    scores: list[StageScores]
    tensors: list[TensorRow]
    images: list[ImageResult]
    samples: list[SampleFigure]
    targets: bool
    classes: list[ClassRow]
    all_classes: int
    text: Mapping[str, str]
    confusion: list[ConfusionFigure]
    most_classes: int
    latency: list[LatencyFigure]
    threads: int
    parity: ParityRows
    contract: ContractFigure | None
    snippets: list[tuple[str, str, str]]
    recipe: str
    origin: list[tuple[str, str]]
