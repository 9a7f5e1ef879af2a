"""Data in tables: a csv or a parquet file."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from compress.recipe.schema.parts import (
    Attributes,
    BatchSize,
    Count,
    FirstTest,
    FirstTrain,
    Names,
    Part,
    Text,
    ValidationPart,
)


class WindowsPart(Part):
    """Windows over the rows, which are in the order of time."""

    window: Count = Field(description="rows of the input, the oldest first")
    horizon: Count = Field(description="number of rows to predict after them")
    stride: Count = Field(default=1, description="rows from the start of one window to that of the next")


class TablePart(Part):
    """What tables in any file have in common."""

    target: Names | None = Field(
        default=None,
        description="the column to predict, or a list of columns, which are then not inputs; if absent, the inputs are "
        "the targets",
    )
    categorical: Names | None = Field(default=None, description="columns whose values are categories")
    drop: Names | None = Field(default=None, description="columns to leave out")
    attributes: Attributes = None
    impute: Literal["median"] | None = Field(
        default=None,
        description="fill missing numbers with the column's median in the training part, and missing categories with "
        "the most frequent one; if absent, they are errors",
    )
    unknown: Literal["error", "zero"] = Field(
        default="error",
        description="a category that only the test file has: an error, or zeros in all columns of the category",
    )
    embed: bool = Field(
        default=False,
        description="call the network with `numbers` and `codes`, whole numbers from 1 for embeddings; if false, each "
        "category becomes a column of 0 and 1",
    )
    classes: bool | None = Field(
        default=None,
        description="whether the target column has classes; if absent, words are classes, and up to 100 different "
        "whole numbers",
    )
    normalise: Literal["dataset", "none"] = Field(
        default="dataset",
        description="scale numbers to mean 0 and deviation 1 over the training part, or do not scale them",
    )
    normalise_target: bool = Field(default=False, description="also scale targets that are numbers")
    series: WindowsPart | None = Field(
        default=None,
        description="samples are windows over the rows, in the order of the file; `target` columns are "
        "inputs, too, and without `target` all columns of numbers are targets",
    )
    validation: ValidationPart = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128

    @field_validator("series")
    @classmethod
    def _targets_are_numbers_like_the_inputs(
        cls, series: WindowsPart | None, info: ValidationInfo
    ) -> WindowsPart | None:
        if series is not None and info.data.get("attributes"):
            raise ValueError("a series has no `attributes`: its samples are windows over rows; remove one")
        for key in ("embed", "classes", "normalise_target"):
            if series is not None and info.data.get(key):
                raise ValueError(
                    f"a series has no `{key}`: its targets are numbers, scaled like its inputs; remove one"
                )
        return series


class CsvData(TablePart):
    """A table in a csv file, whose first row has the names of the columns."""

    csv: Text = Field(description="file with the rows; without `csv_test`, a part of it is held out for testing")
    csv_test: Text | None = Field(default=None, description="file with the test rows")
    separator: Annotated[str, StringConstraints(min_length=1, max_length=1, pattern=r"^[^\r\n\"]$")] = Field(
        default=",", description="the character between two fields"
    )
    encoding: Text = Field(default="utf-8", description="the encoding of the file, such as cp1252 or utf-16")
    columns: Names | None = Field(default=None, description="names of the columns, if the file has no header")


class ParquetData(TablePart):
    """A table in a parquet file; needs the package pyarrow (`softprune[tables]`)."""

    parquet: Text = Field(
        description="file with the rows; without `parquet_test`, a part of it is held out for testing"
    )
    parquet_test: Text | None = Field(default=None, description="file with the test rows")
