"""`Preparation`: how a raw sample (a picture, a row, a sentence) becomes what the network is called with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from compress.data.image_options import AS_STORED, ImageOptions


class Preparation(Protocol):
    """What is known about the way from a raw sample to the network's input; it is written into every file of a run."""

    def described(self) -> dict[str, Any]:
        """As JSON, with `kind` ("images", "table", "arrays", "series", "text") and all that repeats the preparation.

        Statistics and vocabularies are in it as numbers and words, never as a path.
        """
        ...


@dataclass(frozen=True)
class Images:
    """An image is prepared as `options` say; pixels, 0 to 255, are divided by 255; then the mean is subtracted, and the
    result divided by the deviation.

    mean, std: a number for each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: ImageOptions = AS_STORED

    def described(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": "images", "mean": list(self.mean), "std": list(self.std)}
        options = self.options
        found["normalise"] = options.normalise if isinstance(options.normalise, str) else "own"
        if options.upright:
            found["upright"] = True
        for name in ("channels", "resize", "crop"):
            if (value := getattr(options, name)) is not None:
                found[name] = list(value) if isinstance(value, tuple) else value
        return found


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


@dataclass(frozen=True)
class Series:
    """The last rows of a series.

    columns: those of a row, prepared as in a `Table`; the first `targets` of them are predicted.
    window: rows that the network is called with, the oldest first: [window, columns].
    horizon: rows after them that it predicts: [horizon, targets], prepared like the input.
    """

    columns: tuple[NumberColumn | CategoryColumn, ...]
    unknown: bool
    window: int
    horizon: int
    targets: int

    def described(self) -> dict[str, Any]:
        return {
            "kind": "series",
            "columns": [column.described() for column in self.columns],
            "unknown_categories": "zero" if self.unknown else "error",
            "window": self.window,
            "horizon": self.horizon,
            "targets": [column.name for column in self.columns[: self.targets]],
        }


@dataclass(frozen=True)
class Scale:
    """Numbers of the last dimension of an array, or one for all of it: the mean is subtracted, the result divided."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Arrays:
    """Arrays by the name of the network's argument; one that has no scale is used as it is."""

    scales: Mapping[str, Scale | None]

    def described(self) -> dict[str, Any]:
        return {
            "kind": "arrays",
            "inputs": {
                name: None if scale is None else {"mean": list(scale.mean), "std": list(scale.std)}
                for name, scale in self.scales.items()
            },
        }
