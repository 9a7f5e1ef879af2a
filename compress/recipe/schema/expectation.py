"""What the owner of the dense network knows of it."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from compress.recipe.schema.parts import Part
from compress.recipe.schema.task import MetricName


class Bound(Part):
    """The least or the most that a metric of the dense network is, or both."""

    at_least: float | None = Field(default=None, description="the least")
    at_most: float | None = Field(default=None, validate_default=True, description="the most")

    @field_validator("at_most")
    @classmethod
    def _there_is_a_bound(cls, at_most: float | None, info: ValidationInfo) -> float | None:
        if at_most is None and info.data.get("at_least", 0) is None:
            raise ValueError("give at_least, at_most or both")
        return at_most


def _form(value: object) -> str:
    return "number" if isinstance(value, int | float | str) else "bound"


Expectation = Annotated[
    dict[MetricName, Annotated[Annotated[float, Tag("number")] | Annotated[Bound, Tag("bound")], Discriminator(_form)]],
    Field(min_length=1),
]
