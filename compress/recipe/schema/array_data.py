"""Data in arrays of any shape and dtype."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from compress.recipe.schema.parts import (
    Attributes,
    BatchSize,
    FirstTest,
    FirstTrain,
    Part,
    SomeDistinct,
    Text,
    ValidationPart,
)


def _form(value: object) -> str:
    return "one" if isinstance(value, str) else "several"


class ArrayData(Part):
    """Arrays of any shape and dtype in numpy files, such as series [N, T, F] or token ids [N, T]."""

    npz: Text = Field(description="file with the arrays; without `npz_test`, a part of it is held out for testing")
    npz_test: Text | None = Field(default=None, description="file with the test arrays")
    inputs: Annotated[
        Annotated[Text, Tag("one")] | Annotated[SomeDistinct[Text], Tag("several")], Discriminator(_form)
    ] = Field(
        description="the array that the network is called with, or a list of arrays, passed by their names as keywords"
    )
    targets: Text | None = Field(
        default=None,
        description="the array to compare outputs with; integers [N] are classes. If absent, the inputs",
    )
    lengths: Text | None = Field(
        default=None,
        description="the array with the lengths of series [N, T, ...] that are padded at their end, passed by its name",
    )
    attributes: Attributes = None
    normalise: Literal["dataset", "none"] = Field(
        default="none",
        description="scale floats to mean 0 and deviation 1 over the training part: each feature of [N, F] and [N, T, "
        "F], other arrays as a whole",
    )
    validation: ValidationPart = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128
