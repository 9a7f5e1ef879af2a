"""`Preparation`: how a raw sample (a picture, a row, a sentence) becomes what the network is called with."""

from dataclasses import dataclass
from typing import Any, Protocol


class Preparation(Protocol):
    """What is known about the way from a raw sample to the network's input; it is written into every file of a run."""

    def described(self) -> dict[str, Any]:
        """As JSON, with `kind` ("images", "table", "arrays", "series", "text") and all that repeats the preparation.

        Statistics and vocabularies are in it as numbers and words, never as a path.
        """
        ...


@dataclass(frozen=True)
class Images:
    """Pixels, 0 to 255, are divided by 255; then the mean is subtracted, and the result divided by the deviation.

    mean, std: a number for each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def described(self) -> dict[str, Any]:
        return {"kind": "images", "mean": list(self.mean), "std": list(self.std)}


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: a missing one becomes `fill`, then `mean` is subtracted and the result divided by `std`.

    fill: None where a missing number is an error.
    """

    name: str
    mean: float
    std: float
    fill: float | None = None

    def described(self) -> dict[str, Any]:
        return {"name": self.name, "kind": "number", "mean": self.mean, "std": self.std, "fill": self.fill}


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories: a missing one becomes `fill`; its number is its place among `categories`.

    fill: None where a missing category is an error.
    """

    name: str
    categories: tuple[str, ...]
    fill: str | None = None

    def described(self) -> dict[str, Any]:
        return {"name": self.name, "kind": "category", "categories": list(self.categories), "fill": self.fill}


@dataclass(frozen=True)
class Table:
    """A row of a table.

    columns: those of the input, in order.
    embed: False: one input [columns], where a category is as many numbers as there are categories, all 0 but a 1.
        True: the inputs `numbers` [columns of numbers] and `codes` (int64, [columns of categories]), 1 for the first
        category of a column.
    unknown: whether other categories are allowed: zeros, or the code 0.
    targets: the columns that are predicted, by their mean and deviation where the network predicts standardised ones;
        of classes, the names alone.
    """

    columns: tuple[NumberColumn | CategoryColumn, ...]
    embed: bool
    unknown: bool
    targets: tuple[NumberColumn | CategoryColumn, ...]

    def described(self) -> dict[str, Any]:
        return {
            "kind": "table",
            "columns": [column.described() for column in self.columns],
            "categories_as": "codes" if self.embed else "one_hot",
            "unknown_categories": "zero" if self.unknown else "error",
            "targets": [column.described() for column in self.targets],
        }
