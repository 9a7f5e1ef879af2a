"""What the remaining latent nodes are to hold, and what not."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from compress.recipe.schema.parts import Part, Text

Weighted = dict[Text, Annotated[float, Field(gt=0)]]


class Shaping(Part):
    """Attributes of the samples that the remaining nodes are to hold or not, with weights in the loss."""

    keep: Weighted = Field(
        default={},
        description="attributes by the weight of their cross entropy, which a linear layer learns from the remaining "
        "nodes: label, or attributes of the data",
    )
    drop: Weighted = Field(
        default={},
        validate_default=True,
        description="attributes by the weight of a measure of dependence: the remaining nodes become independent of "
        "them",
    )

    @field_validator("drop")
    @classmethod
    def _each_is_kept_or_dropped(cls, drop: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if "keep" not in info.data:
            return drop
        if both := [name for name in info.data["keep"] if name in drop]:
            raise ValueError(f"{both[0]} is in keep, too; remove it from one of them")
        if not drop and not info.data["keep"]:
            raise ValueError("neither keep nor drop names an attribute; name one, or remove `shape`")
        return drop
