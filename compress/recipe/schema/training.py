"""How networks train: the dense one, and what remains of it."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from compress.recipe.schema.parts import Count, Part, SomeDistinct, Text
from compress.train.optimization import LRSchedule, Optimizer, Precision


class Training(Part):
    """How the dense network is trained, by `compress train`."""

    epochs: int = Field(ge=1, description="passes over the training images")
    optimizer: Optimizer = Field(description="sgd, adam, adamw, or muon (for matrices; adamw for the rest)")
    lr: float = Field(gt=0, description="learning rate; where it starts, if there is a schedule")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of the optimizer")
    lr_schedule: LRSchedule = Field(default="constant", description="constant, or cosine or linear down to 0")
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the training over which the learning rate first rises"
    )
    precision: Precision = Field(
        default="float32",
        description="of the forward pass; bfloat16 where torch holds that to be safe is faster on some hardware",
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
