"""The columns of a table as numbers: each value is checked once, where its place in the file is still known.

Numbers do not change, words become the number of their category, and a missing value is NaN.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.data.mapped_file import GrowingRows
from compress.data.table_files import Column, TableFile
from compress.errors import DataError
from compress.wording import did_you_mean

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What a field without a value holds, in small letters."""

MOST_CATEGORIES = 1_000
"""Of one column, where each becomes its own column."""

MOST_CLASSES = 10_000

MOST_GUESSED = 100
"""Targets with more distinct whole numbers are not taken for classes unless `classes` says so."""

LARGEST = float(np.finfo(np.float32).max)

_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([ T].*)?$")


@dataclass(frozen=True)
class TableSettings:
    """What the columns of a table are for.

    target: columns that the network is to predict; no inputs. Empty where the inputs are the targets.
    categorical: input columns whose values are categories, words or numbers.
    drop: columns that are left out.
    attributes: columns of further classes of the samples; no inputs.
    impute: "median" fills missing numbers with the column's median, and missing categories with the most frequent one.
    unknown: a category that only the test file has is an error, or a row of zeros ("zero").
    embed: categories are numbers for an embedding, in their own input; else one column each, of 0 and 1.
    classes: whether the one target column has classes; if None, words are, and up to `MOST_GUESSED` whole numbers.
    normalise: inputs have mean 0 and standard deviation 1 over the training part ("dataset"), or do not change.
    normalise_target: so do targets that are numbers.
    """

    target: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    impute: Literal["median"] | None = None
    unknown: Literal["error", "zero"] = "error"
    embed: bool = False
    classes: bool | None = None
    normalise: Literal["dataset", "none"] = "dataset"
    normalise_target: bool = False


@dataclass
class Categories:
    """The words of a column in the order in which they appear, then `sorted_numbers` in the order of the words.

    most: how many there may be.
    complete: further words are unknown.
    """

    most: int
    numbers: dict[str, int] = field(default_factory=dict)
    complete: bool = False

    def sorted_words(self) -> tuple[str, ...]:
        """By size if all of them are whole numbers, else by spelling."""
        if all(re.fullmatch(r"[+-]?\d{1,18}", word, re.ASCII) for word in self.numbers):
            return tuple(sorted(self.numbers, key=lambda word: (int(word), word)))
        return tuple(sorted(self.numbers))

    def sorted_numbers(self) -> NDArray[np.float64]:
        """For each number of `numbers`, the place of its word in `sorted_words`; NaN for one that is missing."""
        places = {word: place for place, word in enumerate(self.sorted_words())}
        return np.array([places[word] for word in self.numbers], np.float64)


@dataclass
class Layout:
    """The columns of a table that are used: input columns, then targets, then attributes.

    categories: of columns with words, and of all attributes.
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    categories: dict[str, Categories]
    whole: set[float] = field(default_factory=set)  # distinct values of a target of whole numbers, `MOST_GUESSED` + 1
    fractions: bool = False  # whether a value of the target is not a whole number
    complete: bool = False
    attributes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.inputs + self.targets + self.attributes


def layout_of(file: TableFile, settings: TableSettings) -> Layout:
    """The columns of the training file. Raises DataError where one that is named does not exist, or has two uses."""
    names = file.names()
    require_columns(file, names, settings.target, "target")
    require_columns(file, names, settings.categorical, "categorical")
    require_columns(file, names, settings.drop, "drop")
    require_columns(file, names, settings.attributes, "attributes")
    for name in settings.attributes:
        if name in settings.target + settings.categorical + settings.drop:
            raise DataError(f"the column {name!r} is an attribute, which is not an input or a target; name it once.")
    for name in settings.categorical + settings.drop:
        if name in settings.target:
            raise DataError(f"the column {name!r} is the target, which is not an input; do not name it again.")
        if name in settings.categorical and name in settings.drop:
            raise DataError(f"the column {name!r} is both categorical and to be dropped; name it once.")
    inputs = tuple(name for name in names if name not in settings.target + settings.drop + settings.attributes)
    if not inputs:
        raise DataError(f"{file.path} has no column besides the target, attributes and those that are dropped.")
    most = MOST_CLASSES if settings.embed else MOST_CATEGORIES
    categories = {name: Categories(most) for name in settings.categorical}
    categories |= {name: Categories(MOST_CLASSES) for name in settings.attributes}
    return Layout(inputs, settings.target, categories, attributes=settings.attributes)


def require_columns(file: TableFile, names: Sequence[str], wanted: Sequence[str], key: str) -> None:
    """Raise DataError unless the file has all of the columns."""
    for name in wanted:
        if name not in names:
            shown = ", ".join(names[:20]) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")
            numbers = "; if the file has no header, name its columns with `columns`" if _is_number(names[0]) else ""
            raise DataError(
                f"{file.path} has no column {name!r} ({key}); it has {shown}{numbers}{did_you_mean(name, names)}"
            )


def read_rows(file: TableFile, layout: Layout, settings: TableSettings, limit: int) -> NDArray[np.float64]:
    """All rows [n, columns of `layout`], and the categories that are found, in `layout`.

    A second file has to have the categories of the first, except for those of inputs that may be unknown, which are -1.

    Raises:
        DataError: a value is not what its column has, or missing; there is no row; the disk is full.
    """
    require_columns(file, file.names(), layout.names, "in the training file")
    rows = GrowingRows((len(layout.names),), np.float64, limit)
    for block in file.blocks(layout.names):
        reader = _Reader(file, settings, layout, block.places)
        columns = [reader.read(name, column) for name, column in zip(layout.names, block.columns, strict=True)]
        rows.append(np.stack(columns, 1))
    if not len(rows):
        raise DataError(f"{file.path} has a header and no row; samples are rows.")
    layout.complete = True
    for categories in layout.categories.values():
        categories.complete = True
    return rows.tensor().numpy()


@dataclass(frozen=True)
class _Reader:
    """One block of a file."""

    file: TableFile
    settings: TableSettings
    layout: Layout
    places: Sequence[int]

    def read(self, name: str, column: Column) -> NDArray[np.float64]:
        if name in self.layout.targets:
            return self._target(name, column)
        found = self._categories(name, column) if name in self.layout.categories else self._numbers(name, column)
        if name in self.layout.attributes:
            self._require_values(name, np.isnan(found), column, "leave the row out: an attribute is not filled in")
        elif self.settings.impute is None:
            self._require_values(name, np.isnan(found), column, "leave the row out, or set `impute: median`")
        return found

    def _target(self, name: str, column: Column) -> NDArray[np.float64]:
        single = len(self.layout.targets) == 1
        if single and not self.layout.complete and name not in self.layout.categories and not self.layout.whole:
            has_words = not isinstance(column, np.ndarray) and not all(map(_is_number, column))
            if not self.layout.fractions and (self.settings.classes or (has_words and self.settings.classes is None)):
                self.layout.categories[name] = Categories(MOST_CLASSES)
        categorical = name in self.layout.categories
        found = self._categories(name, column) if categorical else self._numbers(name, column)
        self._require_values(name, np.isnan(found), column, "leave the row out: a target is not filled in")
        if single and not categorical:
            self._note_whole(name, found)
        return found

    def _note_whole(self, name: str, found: NDArray[np.float64]) -> None:
        """Keep track of what may be classes. Raises DataError where a second file has one that the first has not."""
        layout = self.layout
        if layout.complete and counts_classes(layout, self.settings):
            for number in set(np.unique(found)) - layout.whole:
                self._refuse_unknown(name, _word_of(number), int(np.argmax(found == number)), "class")
        if layout.complete or layout.fractions:
            return
        layout.fractions = bool((found != np.floor(found)).any())
        if len(layout.whole) <= MOST_GUESSED:
            layout.whole.update(np.unique(found).tolist())

    def _numbers(self, name: str, column: Column) -> NDArray[np.float64]:
        if isinstance(column, np.ndarray):
            found = column
        else:
            try:
                found = np.array([float(word) for word in column], np.float64)
            except ValueError:
                found = np.array([self._number(name, word, row) for row, word in enumerate(column)], np.float64)
        large = np.abs(found) > LARGEST
        if large.any():
            row = int(np.argmax(large))
            raise self._error(name, row, f"found {_shown(column[row])}, beyond what float32 holds; rescale the column")
        return found

    def _number(self, name: str, word: str, row: int) -> float:
        try:
            return float(word)
        except ValueError:
            text = word.strip()
        if text.lower() in MISSING:
            return float("nan")
        if name in self.layout.targets:
            many = len(self.layout.targets) > 1
            way_out = "several targets must be numbers" if many else "classes in words need `classes: true`"
        elif _DATE.match(text):
            way_out = "a date is not a number: leave the column out with `drop`, or store numbers made of it"
        elif re.fullmatch(r"[+-]?[\d.]*,\d+", text):
            way_out = "write numbers with a decimal point"
        else:
            way_out = "fix it, or name the column under `categorical` or `drop`"
        raise self._error(name, row, f"found {_shown(word)}, which is not a number; {way_out}")

    def _categories(self, name: str, column: Column) -> NDArray[np.float64]:
        known = self.layout.categories[name]
        words = list(map(_word_of, column) if isinstance(column, np.ndarray) else map(str.strip, column))
        try:
            return np.array([known.numbers[word] for word in words], np.float64)
        except KeyError:
            return np.array([self._category(name, known, word, row) for row, word in enumerate(words)], np.float64)

    def _category(self, name: str, categories: Categories, word: str, row: int) -> float:
        number = categories.numbers.get(word)
        if number is not None:
            return number
        if word.lower() in MISSING:
            return float("nan")
        is_target = name in self.layout.targets + self.layout.attributes
        if categories.complete:
            if is_target or self.settings.unknown == "error":
                self._refuse_unknown(name, word, row, "class" if is_target else "category")
            return -1
        if len(categories.numbers) == categories.most:
            what = "classes" if is_target else "categories"
            way_out = (
                "set `classes: false` for numbers" if is_target else "leave it out with `drop`, or set `embed: true`"
            )
            raise self._error(name, row, f"the column has more than {categories.most:,} {what}; {way_out}")
        return categories.numbers.setdefault(word, len(categories.numbers))

    def _refuse_unknown(self, name: str, word: str, row: int, what: str) -> None:
        way_out = "" if what == "class" else ", or set `unknown: zero`"
        raise self._error(
            name, row, f"found {_shown(word)}, a {what} that the training file does not have; add rows of it{way_out}"
        )

    def _require_values(self, name: str, missing: NDArray[np.bool_], column: Column, way_out: str) -> None:
        if missing.any():
            row = int(np.argmax(missing))
            word = column[row]
            found = f" (found {_shown(word)})" if isinstance(word, str) and word.strip() else ""
            raise self._error(name, row, f"the value is missing{found}; {way_out}")

    def _error(self, name: str, row: int, text: str) -> DataError:
        return DataError(f"{self.file.path}, {self.file.counts} {self.places[row]}, column {name!r}: {text}.")


def counts_classes(layout: Layout, settings: TableSettings) -> bool:
    """Whether the one target, of whole numbers, is taken for classes."""
    return settings.classes is None and not layout.fractions and len(layout.whole) <= MOST_GUESSED


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word.strip().lower() in MISSING
    return True


def _word_of(number: float) -> str:
    if number != number:
        return ""
    return str(int(number)) if number.is_integer() else repr(float(number))


def _shown(value: object) -> str:
    return (repr(value) if isinstance(value, str) else f"{value:g}")[:80]
