"""How networks train: the dense one, and the pruned one."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from compress.recipe.schema.parts import Count, Part, SomeDistinct, Text
from compress.train.optimization import LRSchedule, Optimizer, Precision


class Training(Part):
    """How the dense network is trained, by `compress train`."""

    epochs: int = Field(ge=1, description="passes over the training samples")
    optimizer: Optimizer = Field(description="sgd, adam, adamw, or muon (for matrices; adamw for the rest)")
    lr: float = Field(gt=0, description="learning rate; with a schedule, the initial one")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of the optimizer")
    lr_schedule: LRSchedule = Field(default="constant", description="constant, or cosine or linear down to 0")
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the training in which the learning rate rises first"
    )
    precision: Precision = Field(
        default="float32",
        description="precision of the forward pass; bfloat16, used where torch considers it safe, is faster on some "
        "hardware",
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
    """The network also learns the dense network's outputs for the training samples."""

    weight: float = Field(gt=0, le=1, description="weight of the dense network's outputs in the loss")
    temperature: float = Field(default=1.0, gt=0, description="divides the logits of both networks; for classify")


class Retraining(Training):
    """How the remaining parameters train, during or after the removal of the others."""

    epochs: int = Field(ge=0, description="passes over the training samples; 0 for none")
    trainable: Trainable = Field(
        default="all", description="all, adjacent to the pruned nodes, or a list of patterns of parameter names"
    )
    batch_size: Count | None = Field(default=None, description="samples in a batch; as in `data` if absent")
    distill: Distillation | None = Field(
        default=None, description="also learn from the dense network; only from the samples if absent"
    )
