"""The samples that rows of a table become, in memory or mapped into it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from compress.data.array_dataset import ONLY, Samples
from compress.data.mapped_file import GrowingRows
from compress.data.preparation import CategoryColumn, NumberColumn, Table
from compress.data.table_columns import Layout
from compress.data.table_statistics import Numbers, Rows, pieces


@dataclass(frozen=True)
class Making:
    """Makes samples of rows as `table` says.

    limit: bytes of an array up to which it is in memory.
    """

    layout: Layout
    table: Table
    limit: int

    def samples(self, rows: Rows, chosen: Numbers) -> Samples:
        """Those of the chosen rows, in that order. Raises DataError where the disk is full."""
        every, codes = range(len(self.table.columns)), self._columns_of(CategoryColumn)
        if not (self.table.embed and codes):
            inputs = {ONLY: self.inputs(rows, chosen, every)}
        else:
            numbers = self._columns_of(NumberColumn)
            inputs = {"numbers": self.inputs(rows, chosen, numbers)} if numbers else {}
            inputs["codes"] = self._tensor(rows, chosen, codes, self._coded, np.int64)
        return Samples(inputs, self._targets(rows, chosen), attributes=self._attributes(rows, chosen))

    def inputs(self, rows: Rows, chosen: Numbers, columns: Iterable[int]) -> Tensor:
        """Standardised numbers, and 0 or 1 for each category, of the chosen rows: float32 [n, ...]."""
        return self._tensor(rows, chosen, columns, self._expanded, np.float32)

    def _columns_of(self, kind: type) -> list[int]:
        return [number for number, column in enumerate(self.table.columns) if isinstance(column, kind)]

    def _tensor(
        self,
        rows: Rows,
        chosen: Numbers,
        columns: Iterable[int],
        made: Callable[[Rows, int], Rows],
        dtype: DTypeLike,
    ) -> Tensor:
        columns = list(columns)
        width = sum(made(rows[:1], column).shape[1] for column in columns)
        blocks = (
            np.concatenate([made(rows[piece], column) for column in columns], 1)
            for piece in pieces(chosen, max(width, rows.shape[1]))
        )
        return _stored(blocks, (width,), dtype, self.limit)

    def _expanded(self, rows: Rows, number: int) -> Rows:
        """A standardised number [n, 1], or a category as [n, categories] of 0 and 1."""
        column = self.table.columns[number]
        if isinstance(column, CategoryColumn):
            made: Rows = (self._places(rows, number)[:, None] == np.arange(len(column.categories))) * 1.0
            return made
        found = rows[:, number]
        if column.fill is not None:
            found = np.where(np.isnan(found), column.fill, found)
        scaled: Rows = ((found - column.mean) / column.std)[:, None]
        return scaled

    def _coded(self, rows: Rows, number: int) -> Rows:
        made: Rows = self._places(rows, number)[:, None] + 1
        return made

    def _places(self, rows: Rows, number: int) -> Rows:
        """The place of each row's category among the sorted ones, -1 for an unknown one."""
        column, found = self.table.columns[number], rows[:, number]
        assert isinstance(column, CategoryColumn)
        places = np.append(self.layout.categories[column.name].sorted_numbers(), -1)
        made: Rows = places[np.where(np.isnan(found), -1, found).astype(np.int64)]
        if column.fill is not None:
            made = np.where(np.isnan(found), column.categories.index(column.fill), made)
        return made

    def _targets(self, rows: Rows, chosen: Numbers) -> Tensor | None:
        """Numbers of classes, int64 [n], or float32 [n, targets]."""
        start, columns = len(self.layout.inputs), self.table.targets
        if not columns:
            return None
        if isinstance(columns[0], CategoryColumn):
            labels = (self._labels(rows[piece, start]) for piece in pieces(chosen, rows.shape[1]))
            return _stored(labels, (), np.int64, self.limit)
        mean, std = (np.array([getattr(column, key) for column in columns]) for key in ("mean", "std"))
        blocks = ((rows[piece, start : start + len(columns)] - mean) / std for piece in pieces(chosen, rows.shape[1]))
        return _stored(blocks, (len(columns),), np.float32, self.limit)

    def _attributes(self, rows: Rows, chosen: Numbers) -> dict[str, Tensor]:
        """The place of each row's class among the sorted ones, int64 [n], by attribute."""
        start, found = len(self.layout.inputs + self.layout.targets), {}
        for number, name in enumerate(self.layout.attributes, start):
            places = self.layout.categories[name].sorted_numbers()
            classes = (places[rows[piece, number].astype(np.int64)] for piece in pieces(chosen, rows.shape[1]))
            found[name] = _stored(classes, (), np.int64, self.limit)
        return found

    def _labels(self, column: Rows) -> NDArray[Any]:
        if (known := self.layout.categories.get(self.layout.targets[0])) is not None:
            return known.sorted_numbers()[column.astype(np.int64)]
        return np.searchsorted(np.array(sorted(self.layout.whole)), column)


def _stored(blocks: Iterable[NDArray[Any]], row: tuple[int, ...], dtype: DTypeLike, limit: int) -> Tensor:
    grown = GrowingRows(row, dtype, limit)
    for block in blocks:
        grown.append(block)
    return grown.tensor()
