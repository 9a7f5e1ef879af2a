"""What the network is trained and measured for: a word, a word with settings, or your own functions."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, ValidationInfo, field_validator

from compress.ranking import KINDS, Better
from compress.recipe.schema.parts import Distinct, Factory, Part, Text
from compress.task_words import IGNORING, METRICS, Word

MetricName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class NamedTask(Part):
    """A task by its word, with settings."""

    name: Word = Field(description="as `task: classify` alone")
    metrics: Distinct[Text] | None = Field(
        default=None, description="metrics to measure in addition to the loss; the task's defaults if absent"
    )
    rank_by: Text | None = Field(
        default=None, description="the metric that decides between networks; the first one if absent"
    )
    ignore_index: int | None = Field(default=None, description="a label to ignore; -100 is always ignored")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="label smoothing of the training loss, for classify"
    )

    @field_validator("metrics")
    @classmethod
    def _metrics_are_of_the_task(cls, metrics: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        for name in metrics or ():
            _require_metric(name, info, also="")
        return metrics

    @field_validator("rank_by")
    @classmethod
    def _it_can_rank(cls, rank_by: str | None, info: ValidationInfo) -> str | None:
        if rank_by is not None and rank_by != "loss":
            _require_metric(rank_by, info, also="loss, ")
        return rank_by

    @field_validator("ignore_index")
    @classmethod
    def _targets_are_labels(cls, ignore_index: int | None, info: ValidationInfo) -> int | None:
        if ignore_index is not None and info.data.get("name", IGNORING[0]) not in IGNORING:
            raise ValueError(f"the task {info.data['name']} has no labels; it is for {', '.join(IGNORING)}")
        return ignore_index

    @field_validator("label_smoothing")
    @classmethod
    def _only_classes_are_smoothed(cls, label_smoothing: float, info: ValidationInfo) -> float:
        if label_smoothing and info.data.get("name", "classify") != "classify":
            raise ValueError(f"the task {info.data['name']} has no classes to smooth; it is for classify")
        return label_smoothing


def _require_metric(name: str, info: ValidationInfo, also: str) -> None:
    word: Word | None = info.data.get("name")
    if word is None or name in METRICS[word]:
        return
    if name == "loss":
        raise ValueError("the loss is measured anyway; leave it out")
    raise ValueError(f"found {name!r}, and the task {word} has {also}{', '.join(METRICS[word])}")


class OwnTask(Part):
    """Your own loss and metrics: functions (output, target) -> mean over the samples of the batch."""

    loss: Factory
    metrics: dict[MetricName, Factory] = Field(
        default={}, description="functions to measure in addition to the loss, by name"
    )
    target: Literal["label", "image"] = Field(
        default="label", description="what to compare the output with; your own loaders decide this themselves"
    )
    rank_by: MetricName | None = Field(
        default=None, description="the metric that decides between networks; `accuracy`, or else the loss if absent"
    )
    better: Better | None = Field(
        default=None, description="which values of that metric are better, if its name is not a known one"
    )

    @field_validator("metrics")
    @classmethod
    def _loss_is_the_loss(cls, metrics: dict[str, str]) -> dict[str, str]:
        if "loss" in metrics:
            raise ValueError("a metric cannot be called loss; the loss is measured anyway")
        return metrics

    @field_validator("rank_by")
    @classmethod
    def _it_is_measured(cls, rank_by: str | None, info: ValidationInfo) -> str | None:
        measured = ("loss", *info.data.get("metrics", ()))
        if rank_by is not None and "metrics" in info.data and rank_by not in measured:
            raise ValueError(f"found {rank_by!r}, and this task measures {', '.join(measured)}")
        return rank_by

    @field_validator("better")
    @classmethod
    def _it_says_what_ranks(cls, better: Better | None, info: ValidationInfo) -> Better | None:
        name = info.data.get("rank_by")
        if better is not None and "rank_by" in info.data:
            if name is None:
                raise ValueError("it says which figures of `rank_by` are better; name that metric too")
            known = KINDS.get(name)
            if known is not None and known.better != better:
                raise ValueError(f"found {better!r}, and of {name} the {known.better} is better; rename your metric")
        return better


def _form(value: object) -> str:
    if isinstance(value, str):
        return "word"
    named = isinstance(value, NamedTask) or (isinstance(value, Mapping) and "name" in value)
    return "named task" if named else "own task"


AnyTask = Annotated[
    Annotated[Word, Tag("word")] | Annotated[NamedTask, Tag("named task")] | Annotated[OwnTask, Tag("own task")],
    Discriminator(_form),
]


def word_of(task: Word | NamedTask | OwnTask) -> Word | None:
    """The word of a task; None for one of the user's own."""
    if isinstance(task, OwnTask):
        return None
    return task.name if isinstance(task, NamedTask) else task
