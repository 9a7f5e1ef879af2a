"""What the network is trained and measured for: one of two words, or your own functions."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator

from compress.recipe.schema.parts import Factory, Part, Task

MetricName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class OwnTask(Part):
    """Your own loss and metrics: functions (output, target) -> mean over the samples of the batch."""

    loss: Factory
    metrics: dict[MetricName, Factory] = Field(default={}, description="measured in addition to the loss, by name")
    target: Literal["label", "image"] = Field(
        default="label", description="what the output is compared with; your own loaders decide this themselves"
    )

    @field_validator("metrics")
    @classmethod
    def _loss_is_the_loss(cls, metrics: dict[str, str]) -> dict[str, str]:
        if "loss" in metrics:
            raise ValueError("a metric cannot be called loss; the loss is measured anyway")
        return metrics


def has_accuracy(task: Task | OwnTask) -> bool:
    """Whether networks are judged by an accuracy in addition to the loss."""
    return task == "classify" or (isinstance(task, OwnTask) and "accuracy" in task.metrics)


def _form(value: object) -> str:
    return "word" if isinstance(value, str) else "own task"


AnyTask = Annotated[Annotated[Task, Tag("word")] | Annotated[OwnTask, Tag("own task")], Discriminator(_form)]
