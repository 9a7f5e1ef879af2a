"""Building blocks of a recipe's schema: strict models, small types, and the choice between forms."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    StringConstraints,
    Tag,
)

from compress.duration import Duration

MNIST_IMAGE: Final = (1, 28, 28)
CIFAR_IMAGE: Final = (3, 32, 32)

MOST: Final = 2**31 - 1
"""The largest count: libraries count with 32 or 64 bits. Left out of the JSON schema, where it would be noise."""

T = TypeVar("T")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _without_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"{value} is listed twice; name it once")
    return values


def _countable(value: int) -> int:
    if value > MOST:
        raise ValueError(f"found {value}; needs at most {MOST}")
    return value


def listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


# A YAML list arrives as a Python list, which strict mode does not accept for a tuple.
Listed = Annotated[tuple[T, ...], Strict(False)]
Distinct = Annotated[Listed[T], AfterValidator(_without_repeats)]
SomeDistinct = Annotated[Listed[T], Field(min_length=1), AfterValidator(_without_repeats)]

Text = Annotated[str, StringConstraints(min_length=1)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]
Dimension = Annotated[int, Strict(False), Field(ge=0)]  # a key of a mapping, which is text in a recipe
Count = Annotated[int, Field(ge=1), AfterValidator(_countable)]
Classes = Annotated[int, Field(ge=2), AfterValidator(_countable)]
Image = Annotated[tuple[Count, Count, Count], Strict(False)]
Names = Annotated[SomeDistinct[Text], BeforeValidator(listed, json_schema_input_type=Text | SomeDistinct[Text])]
Factory = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"),
    Field(description="a function, as my_module:build"),
]


DurationText = Annotated[
    Duration,
    PlainValidator(Duration.parse, json_schema_input_type=Annotated[str, Field(pattern=Duration.PATTERN)]),
    PlainSerializer(str, return_type=str),
]


def _validation_form(value: object) -> str:
    return "share" if isinstance(value, int | float) else "file"


Validation = Annotated[
    Annotated[float, Field(gt=0, lt=1), Tag("share")] | Annotated[Text, Tag("file")], Discriminator(_validation_form)
]
"""What settings are chosen on: a share of the training samples, or the path of a file or folder."""

FirstTrain = Annotated[Count | None, Field(description="use only the first N training samples; all if absent")]
FirstTest = Annotated[Count | None, Field(description="use only the first N test samples; all if absent")]
Attributes = Annotated[
    Names | None,
    Field(
        description="further classes of the samples, which `shape` in a stage keeps in a latent space or drops from it"
    ),
]
BatchSize = Annotated[Count, Field(description="samples in a batch")]


ValidationShare = Annotated[
    Annotated[float, Field(gt=0, lt=1)] | None,
    Field(description="choose settings on this share of the training samples, which is then not trained on"),
]
ValidationPart = Annotated[
    Validation | None,
    Field(
        description="choose settings on these samples: a share of the training samples, which is then not "
        "trained on, such as 0.1; or a separate file or folder, like that of the training samples"
    ),
]


def told_by(noun: str, *keys: str, beside: tuple[str, str] | None = None) -> Discriminator:
    """Choose the form, tagged "KEY NOUN", whose key is present; exactly one has to be.

    beside: a key and another one; with both, the form is tagged "KEY OTHER NOUN".
    """

    def has(value: Any, key: str) -> bool:
        return key in value if isinstance(value, Mapping) else hasattr(value, key)

    def tag(value: Any) -> str | None:
        present = [key for key in keys if has(value, key)]
        if beside is not None and present == [beside[0]] and has(value, beside[1]):
            present = [" ".join(beside)]
        return f"{present[0]} {noun}" if len(present) == 1 else None

    return Discriminator(
        tag,
        custom_error_type="one_of_keys",
        custom_error_message=f"needs a mapping with exactly one of the keys {', '.join(keys)}",
    )


def spelled_out(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value
