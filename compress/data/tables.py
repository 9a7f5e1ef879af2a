"""Tables as data sets: statistics of the training part, inputs made with them, and the parts themselves."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from compress.data.array_dataset import ONLY, ArrayDataset, Samples, digest
from compress.data.mapped_file import SMALL, GrowingRows
from compress.data.preparation import CategoryColumn, NumberColumn, Table
from compress.data.sources import memory_limit
from compress.data.table_columns import (
    MOST_GUESSED,
    Categories,
    Layout,
    TableSettings,
    counts_classes,
    layout_of,
    read_rows,
)
from compress.data.table_files import PIECE_CELLS, TableFile
from compress.errors import DataError

Rows = NDArray[np.float64]
Numbers = NDArray[np.int64]

LOOKED_AT = 10_000
"""Rows at the start of a column in which all whole numbers differ, if it is taken for an identifier."""

FEW = 20
"""Rows in which whole numbers may all differ by chance."""


def from_table(
    file: TableFile,
    test_file: TableFile | None = None,
    settings: TableSettings | None = None,
    *,
    train: int | None = None,
    test: int | None = None,
    limit: int | None = None,
) -> ArrayDataset:
    """A data set of the rows of a table.

    Rows are shuffled, always in the same way. Without `test_file` the last sixth of them is the test set, and `note`
    says so. Statistics are those of the training rows. Categories and classes are those of the whole training file.

    Args:
        train, test: the number of rows that are used of each part, the first ones after shuffling.
        limit: bytes up to which an array is held in memory, by default an eighth of the machine's; larger ones are in a
            temporary file. The result is the same, bit for bit.

    Raises:
        DataError: a file cannot be read, a column does not exist, a value is missing, is not what its column has, or is
            of a category or class that the training file does not have.
        MissingPackageError: pyarrow is not installed, for a parquet file.
    """
    settings, limit = settings or TableSettings(), in_memory() if limit is None else limit
    layout = layout_of(file, settings)
    rows = read_rows(file, layout, settings, limit)
    test_rows = rows if test_file is None else read_rows(test_file, layout, settings, limit)
    chosen, notes = _parts(str(file.path), len(rows), None if test_file is None else len(test_rows), train, test)
    table = fitted(layout, settings, rows, chosen[0])
    target = _target_of(layout, settings, table, rows, file)
    made = Making(layout, table, target, limit)
    parts = made.samples(rows, chosen[0]), made.samples(test_rows, chosen[1])
    notes += _identifiers(layout, rows)
    if target.classes is not None:
        _require_trained_classes(target, parts, file)
    return ArrayDataset(
        file.path.name,
        *parts,
        table,
        digest(parts[0], None, parts[1]),
        classes=target.classes,
        class_names=target.class_names,
        note=" ".join(notes) or None,
    )


def _parts(
    path: str, count: int, test_count: int | None, train: int | None, test: int | None
) -> tuple[tuple[Numbers, Numbers], list[str]]:
    """The numbers of the training rows and of the test rows, in shuffled order; notes."""
    order, notes = _shuffled(count), []
    if test_count is None:
        if count < 2:
            raise DataError(f"{path} has one row; one to train on and one to test on are needed.")
        held_out = max(1, count // 6)
        order, test_order = order[:-held_out], order[-held_out:]
        notes.append(f"No test file: {held_out:,} of {count:,} rows, chosen by chance, are the test set.")
    else:
        test_order = _shuffled(test_count)
    return (first(order, train, f"{path}: train"), first(test_order, test, f"{path}: test")), notes


def _shuffled(count: int) -> Numbers:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()


def first(order: Numbers, count: int | None, what: str) -> Numbers:
    """The first `count` of the row numbers. Raises DataError where there are fewer."""
    if count is not None and count > len(order):
        raise DataError(f"{what} asks for {count:,} rows; there are {len(order):,}.")
    return order[:count]


# --- statistics of the training rows ---


def fitted(layout: Layout, settings: TableSettings, rows: Rows, train: Numbers) -> Table:
    """How a row becomes an input, from the training rows."""
    train = np.sort(train)  # the order in which a file that is mapped into memory is read fastest
    columns = tuple(_input_column(layout, settings, name, rows, train) for name in layout.inputs)
    targets = tuple(_target_column(layout, settings, name, rows, train) for name in layout.targets)
    return Table(columns, settings.embed, settings.unknown == "zero", targets)


def _input_column(
    layout: Layout, settings: TableSettings, name: str, rows: Rows, train: Numbers
) -> NumberColumn | CategoryColumn:
    number = layout.names.index(name)
    if name in layout.categories:
        words = layout.categories[name]
        return CategoryColumn(
            name, words.sorted_words(), None if settings.impute is None else _usual(words, rows[train, number])
        )
    fill = None if settings.impute is None else _median(name, rows[train, number])
    if settings.normalise == "none":
        return NumberColumn(name, 0.0, 1.0, fill)
    return NumberColumn(name, *_moments(rows, train, number, fill), fill)


def _target_column(
    layout: Layout, settings: TableSettings, name: str, rows: Rows, train: Numbers
) -> NumberColumn | CategoryColumn:
    if name in layout.categories:
        return CategoryColumn(name, layout.categories[name].sorted_words())
    if len(layout.targets) == 1 and counts_classes(layout, settings):
        return CategoryColumn(name, tuple(str(int(number)) for number in sorted(layout.whole)))
    if not settings.normalise_target:
        return NumberColumn(name, 0.0, 1.0)
    return NumberColumn(name, *_moments(rows, train, layout.names.index(name), None))


def _moments(rows: Rows, train: Numbers, number: int, fill: float | None) -> tuple[float, float]:
    """Mean and (population) standard deviation of a column; 1 for a deviation of 0, which leaves a constant at 0."""

    def values() -> Iterator[Rows]:
        for piece in pieces(train, rows.shape[1]):
            found = rows[piece, number]
            yield found if fill is None else np.where(np.isnan(found), fill, found)

    mean = sum(float(found.sum()) for found in values()) / len(train)
    variance = sum(float(((found - mean) ** 2).sum()) for found in values()) / len(train)
    # The mean of equal numbers may differ from them in the last bit.
    constant = variance <= (abs(mean) * 2**-50) ** 2
    return mean, 1.0 if constant else float(np.sqrt(variance))


def _median(name: str, column: Rows) -> float:
    found = column[~np.isnan(column)]
    if not len(found):
        raise DataError(f"the column {name!r} has no value in the training part; leave it out with `drop`.")
    return float(np.median(found))


def _usual(words: Categories, column: Rows) -> str:
    """The most frequent category, the first in order of those."""
    known, places = words.sorted_words(), words.sorted_numbers()
    counts = np.bincount(
        places[column[~np.isnan(column)].astype(np.int64)].astype(np.int64), minlength=max(1, len(known))
    )
    if not known:
        raise DataError("a categorical column has no value; leave it out with `drop`.")
    return known[int(np.argmax(counts))]


# --- targets ---


@dataclass(frozen=True)
class Target:
    """What the target columns are: `classes`, numbers, or nothing."""

    classes: int | None = None
    class_names: tuple[str, ...] | None = None


def _target_of(layout: Layout, settings: TableSettings, table: Table, rows: Rows, file: TableFile) -> Target:
    if len(table.targets) != 1:
        if settings.classes:
            raise DataError(f"{file.path}: `classes` is for one target column, and there are {len(table.targets)}.")
        return Target()
    (column,) = table.targets
    if isinstance(column, NumberColumn):
        if settings.classes is None and not layout.fractions:
            raise DataError(
                f"{file.path}: the target {column.name!r} has more than {MOST_GUESSED} different whole numbers; say "
                f"whether they are classes: `classes: true`, or `classes: false` for quantities."
            )
        return Target()
    if len(column.categories) < 2:
        raise DataError(
            f"{file.path}: the target {column.name!r} has only the class {column.categories[0]!r}; two are needed "
            f"(or `classes: false` for a quantity)."
        )
    return Target(len(column.categories), column.categories)


def _require_trained_classes(target: Target, parts: tuple[Samples, Samples], file: TableFile) -> None:
    """Raise DataError where a class has no training sample."""
    assert parts[0].targets is not None  # as there are classes
    assert parts[1].targets is not None
    assert target.class_names is not None
    found = [np.unique(part.numpy()) for part in (parts[0].targets, parts[1].targets)]
    for label in np.setdiff1d(found[1], found[0]).tolist():
        raise DataError(
            f"{file.path}: the class {target.class_names[label]!r} is only in the test part; add rows of it, or give "
            f"the test rows in a file of their own."
        )


# --- inputs ---


@dataclass(frozen=True)
class Making:
    """Makes samples of rows."""

    layout: Layout
    table: Table
    target: Target
    limit: int

    def samples(self, rows: Rows, chosen: Numbers) -> Samples:
        """The samples of the chosen rows, in that order."""
        inputs = {}
        numbers = [number for number, column in enumerate(self.table.columns) if isinstance(column, NumberColumn)]
        codes = [number for number, column in enumerate(self.table.columns) if isinstance(column, CategoryColumn)]
        every = list(range(len(self.table.columns)))
        if not self.table.embed or not codes:
            inputs[ONLY] = self._tensor(rows, chosen, every, self._expanded, np.float32)
        else:
            if numbers:
                inputs["numbers"] = self._tensor(rows, chosen, numbers, self._expanded, np.float32)
            inputs["codes"] = self._tensor(rows, chosen, codes, self._coded, np.int64)
        return Samples(inputs, self._targets(rows, chosen))

    def _tensor(
        self,
        rows: Rows,
        chosen: Numbers,
        columns: list[int],
        made: Callable[[Rows, int], Rows],
        dtype: type[np.float32 | np.int64],
    ) -> Tensor:
        width = sum(made(rows[:1], column).shape[1] for column in columns)
        blocks = (
            np.concatenate([made(rows[piece], column) for column in columns], 1)
            for piece in pieces(chosen, max(width, rows.shape[1]))
        )
        return _stored(blocks, (width,), dtype, self.limit)

    def _expanded(self, rows: Rows, number: int) -> Rows:
        """Standardised numbers [n, 1], or a category as [n, categories] of 0 and 1."""
        column = self.table.columns[number]
        if isinstance(column, NumberColumn):
            found = rows[:, number]
            if column.fill is not None:
                found = np.where(np.isnan(found), column.fill, found)
            return ((found - column.mean) / column.std)[:, None]
        return (self._places(rows, number)[:, None] == np.arange(len(column.categories))).astype(np.float64)

    def _coded(self, rows: Rows, number: int) -> Rows:
        return self._places(rows, number)[:, None] + 1

    def _places(self, rows: Rows, number: int) -> Rows:
        """The place of each row's category among the sorted ones, -1 for an unknown one."""
        column, words = self.table.columns[number], self.layout.categories[self.layout.names[number]]
        assert isinstance(column, CategoryColumn)
        fill = -1 if column.fill is None else column.categories.index(column.fill)
        found, places = rows[:, number], words.sorted_numbers()
        known = found >= 0
        numbers = np.where(known, found, 0).astype(np.int64)
        made: Rows = np.where(known, places[numbers], np.where(np.isnan(found), fill, -1))
        return made

    def _targets(self, rows: Rows, chosen: Numbers) -> Tensor | None:
        start = len(self.layout.inputs)
        if not self.layout.targets:
            return None
        if self.target.classes is not None:
            labels = (self._labels(rows[piece, start]) for piece in pieces(chosen, rows.shape[1]))
            return _stored(labels, (), np.int64, self.limit)
        columns = [column for column in self.table.targets if isinstance(column, NumberColumn)]
        mean, std = (np.array([getattr(column, key) for column in columns]) for key in ("mean", "std"))
        blocks = ((rows[piece, start:] - mean) / std for piece in pieces(chosen, rows.shape[1]))
        return _stored(blocks, (len(columns),), np.float32, self.limit)

    def _labels(self, column: Rows) -> Rows:
        name = self.layout.targets[0]
        if name in self.layout.categories:
            labels: Rows = self.layout.categories[name].sorted_numbers()[column.astype(np.int64)]
            return labels
        return np.searchsorted(np.array(sorted(self.layout.whole)), column).astype(np.float64)


def _stored(blocks: Iterable[NDArray[Any]], row: tuple[int, ...], dtype: DTypeLike, limit: int) -> Tensor:
    """All rows of the blocks, in memory up to `limit` bytes."""
    grown = GrowingRows(row, dtype, limit)
    for block in blocks:
        grown.append(block)
    return grown.tensor()


def pieces(rows: Numbers, width: int) -> Iterator[Numbers]:
    """Row numbers in pieces that are small enough to work on rows of `width` numbers."""
    size = max(1, PIECE_CELLS // max(1, width))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def in_memory() -> int:
    """Bytes of one array that are held in memory by default; while a table is read there are several."""
    return max(SMALL, memory_limit() // 8)


def _identifiers(layout: Layout, rows: Rows) -> list[str]:
    """A note for each input column in which every row has another whole number or category."""
    looked_at, found = rows[:LOOKED_AT], []
    for number, name in enumerate(layout.inputs):
        column = looked_at[:, number]
        whole = not np.isnan(column).any() and bool((column == np.floor(column)).all())
        if whole and len(column) >= FEW and len(np.unique(column)) == len(column):
            found.append(
                f"The column {name!r} has another value in each row; if it is an identifier, leave it out with `drop`."
            )
    return found
