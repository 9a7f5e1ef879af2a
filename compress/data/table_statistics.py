"""Statistics of a table's training rows: how each column becomes input of a network."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compress.data.preparation import CategoryColumn, NumberColumn, Table
from compress.data.table_columns import Categories, Layout, TableSettings, counts_classes
from compress.data.table_files import PIECE_CELLS
from compress.errors import DataError

Rows = NDArray[np.float64]
"""What `compress.data.table_columns.read_rows` gives, [n, columns of the layout]."""

Numbers = NDArray[np.int64]
"""Which of them."""


def fitted(layout: Layout, settings: TableSettings, rows: Rows, train: Numbers) -> Table:
    """How a row becomes an input, by the statistics of the rows `train`. Raises DataError for a column without values.

    The rows are read in the order of the file, which is fastest where it is mapped into memory.
    """
    fit = _Fit(layout, settings, rows, np.sort(train))
    return Table(
        tuple(fit.input_column(name) for name in layout.inputs),
        settings.embed,
        settings.unknown == "zero",
        tuple(fit.target_column(name) for name in layout.targets),
    )


class _Fit:
    def __init__(self, layout: Layout, settings: TableSettings, rows: Rows, train: Numbers) -> None:
        self._layout, self._settings, self._rows, self._train = layout, settings, rows, train

    def input_column(self, name: str) -> NumberColumn | CategoryColumn:
        number, fills = self._layout.names.index(name), self._settings.impute is not None
        if (found := self._layout.categories.get(name)) is not None:
            fill = _most_frequent(found, self._values(number, name)) if fills else None
            return CategoryColumn(name, found.sorted_words(), fill)
        median = float(np.median(self._values(number, name))) if fills else None
        if self._settings.normalise == "none":
            return NumberColumn(name, 0.0, 1.0, median)
        return NumberColumn(name, *self._moments(number, median), median)

    def target_column(self, name: str) -> NumberColumn | CategoryColumn:
        if (found := self._layout.categories.get(name)) is not None:
            return CategoryColumn(name, found.sorted_words())
        if len(self._layout.targets) == 1 and counts_classes(self._layout, self._settings):
            return CategoryColumn(name, tuple(str(int(number)) for number in sorted(self._layout.whole)))
        if not self._settings.normalise_target:
            return NumberColumn(name, 0.0, 1.0)
        return NumberColumn(name, *self._moments(self._layout.names.index(name), None))

    def _values(self, number: int, name: str) -> Rows:
        """Those of the training rows that are there."""
        column = self._rows[self._train, number]
        found: Rows = column[~np.isnan(column)]
        if not len(found):
            raise DataError(f"the column {name!r} has no value in the training part; leave it out with `drop`.")
        return found

    def _moments(self, number: int, fill: float | None) -> tuple[float, float]:
        """Mean and (population) standard deviation; 1 for a deviation of 0, which leaves a constant column at 0."""

        def values() -> Iterator[Rows]:
            for piece in pieces(self._train, self._rows.shape[1]):
                found = self._rows[piece, number]
                yield found if fill is None else np.where(np.isnan(found), fill, found)

        low, high = min(float(found.min()) for found in values()), max(float(found.max()) for found in values())
        if low == high:
            return low, 1.0  # the mean of equal numbers may differ from them in the last bits
        count = len(self._train)
        mean = sum(float(found.sum()) for found in values()) / count
        variance = sum(float(((found - mean) ** 2).sum()) for found in values()) / count
        return mean, variance**0.5 or 1.0


def _most_frequent(known: Categories, column: Rows) -> str:
    """The first of them in order, if there are several."""
    counts = np.bincount(known.sorted_numbers()[column.astype(np.int64)].astype(np.int64))
    return known.sorted_words()[int(np.argmax(counts))]


def pieces(rows: Numbers, width: int) -> Iterator[Numbers]:
    """Row numbers in pieces that are small enough to work on rows of `width` numbers."""
    size = max(1, PIECE_CELLS // max(1, width))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
