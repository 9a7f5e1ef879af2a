"""What the network is trained and measured for: one of two words, or functions of one's own."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator

from compress.recipe.schema.parts import Factory, Part, Task

MetricName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class OwnTask(Part):
    """A loss of one's own, and metrics: functions (output, target) -> mean over the samples of the batch."""

    loss: Factory
    metrics: dict[MetricName, Factory] = Field(default={}, description="measured beside the loss, by name")
    target: Literal["label", "image"] = Field(
        default="label", description="what the output is compared with; loaders of your own decide for themselves"
    )

    @field_validator("metrics")
    @classmethod
    def _loss_is_the_loss(cls, metrics: dict[str, str]) -> dict[str, str]:
        if "loss" in metrics:
            raise ValueError("a metric cannot be called loss; the loss is measured anyway")
        return metrics


def has_accuracy(task: Task | OwnTask) -> bool:
    """Whether networks are judged by an accuracy beside the loss."""
    return task == "classify" or (isinstance(task, OwnTask) and "accuracy" in task.metrics)


def _form(value: object) -> str:
    return "word" if isinstance(value, str) else "own task"


AnyTask = Annotated[Annotated[Task, Tag("word")] | Annotated[OwnTask, Tag("own task")], Discriminator(_form)]
