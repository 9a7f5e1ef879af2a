"""Tables from untrusted files, a block of rows at a time: csv by Python's own reader, parquet by pyarrow.

Neither guesses: a csv has words, which `compress.data.table_columns` makes numbers of, column by column, with the place
of each that is none. Python's reader, unlike faster ones, refuses a row with another number of fields.
"""

import codecs
import csv
import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from compress.data.reading import opened
from compress.errors import DataError, MissingPackageError
from compress.wording import count_of

if TYPE_CHECKING:
    import pyarrow

Column = Sequence[str] | NDArray[np.float64]
"""Words, "" where one is missing, or numbers, NaN where one is missing."""

PIECE_CELLS = 1 << 18
"""Fields in a block."""

MOST_COLUMNS = 20_000
MOST_UNPACKED, MOST_FACTOR = 1 << 30, 200
"""A parquet file that unpacks to more than these bytes and this times its size is refused."""


@dataclass(frozen=True)
class Block:
    """Some rows of a table. `places` has the number of each in its file: of its last line in a csv, else of the row."""

    columns: Sequence[Column]
    places: Sequence[int]


class TableFile(Protocol):
    """A file with named columns."""

    @property
    def path(self) -> Path: ...
    @property
    def counts(self) -> str: ...  # what places are: "line" or "row"
    def names(self) -> tuple[str, ...]: ...  # raises DataError where they cannot be read, or two are equal
    def blocks(self, wanted: Sequence[str]) -> Iterator[Block]: ...  # of these columns; raises DataError


@dataclass(frozen=True)
class CsvFile:
    """Rows of fields between separators, in quotes where a field has a separator or a line break in it.

    separator: one character.
    encoding: by Python's names; a byte order mark is no part of the first name.
    columns: their names where the file has no header.
    """

    path: Path
    separator: str = ","
    encoding: str = "utf-8"
    columns: tuple[str, ...] | None = None
    counts: str = "line"

    def names(self) -> tuple[str, ...]:
        with opened(self.path, ".csv file", links=True) as file, closing(self._rows(file)) as rows:
            found = next(rows, None)
        if found is None:
            raise DataError(f"{self.path} is empty.")
        if self.columns is not None:
            self._require_fields(found[1], len(self.columns), found[0])
            return self.columns
        names = tuple(name.strip() or f"column_{number}" for number, name in enumerate(found[1], 1))
        return _distinct(names, self.path)

    def blocks(self, wanted: Sequence[str]) -> Iterator[Block]:
        names = self.names()
        chosen = [names.index(name) for name in wanted]
        size = max(1, PIECE_CELLS // len(names))
        with opened(self.path, ".csv file", links=True) as file:
            rows = self._rows(file)
            if self.columns is None:
                next(rows)
            while block := list(islice(rows, size)):
                for place, fields in block:
                    if len(fields) != len(names):
                        self._require_fields(fields, len(names), place)
                columns = list(zip(*(fields for _, fields in block), strict=True))
                yield Block([columns[number] for number in chosen], [place for place, _ in block])

    def _require_fields(self, fields: Sequence[str], count: int, place: int) -> None:
        if len(fields) != count:
            raise DataError(
                f"{self.path}, line {place}: found {count_of(len(fields), 'field')} separated by {self.separator!r}, "
                f"and the file has {count_of(count, 'column')}; fix the row, or name another `separator`."
            )

    def _rows(self, file: BinaryIO) -> Generator[tuple[int, list[str]]]:
        """(line on which it ends, fields) of each row that is not blank."""
        encoding = "utf-8-sig" if codecs.lookup(self.encoding).name == "utf-8" else self.encoding
        with TextIOWrapper(file, encoding=encoding, newline="") as text:
            reader = csv.reader(text, delimiter=self.separator, strict=True)
            try:
                for fields in reader:
                    if fields:
                        yield reader.line_num, fields
            except UnicodeDecodeError as error:
                raise self._undecodable(encoding) from error
            except csv.Error as error:
                raise DataError(
                    f"{self.path}, line {reader.line_num}: {error}; a quoted field must end, and a quote in it is "
                    f"written twice."
                ) from error

    def _undecodable(self, encoding: str) -> DataError:
        """Says at which byte of the file; the error itself counts from the start of some part of it."""
        decoder, place = codecs.getincrementaldecoder(encoding)(), 0
        with opened(self.path, ".csv file", links=True) as file:
            while True:
                piece, kept = file.read(1 << 20), len(decoder.getstate()[0])
                try:
                    decoder.decode(piece, final=not piece)
                except UnicodeDecodeError as error:
                    byte, where = error.object[error.start], place - kept + error.start
                    return DataError(
                        f"{self.path} is not {self.encoding}: byte {byte:#04x} at position {where:,}; name the file's "
                        f"own with `encoding`, such as cp1252 or utf-16."
                    )
                if not piece:
                    return DataError(f"{self.path} is not {self.encoding}; name the file's own with `encoding`.")
                place += len(piece)


@dataclass(frozen=True)
class ParquetFile:
    """Columns of numbers, truth values (as 0 and 1) and words, read by pyarrow."""

    path: Path
    counts: str = "row"

    def names(self) -> tuple[str, ...]:
        with opened(self.path, ".parquet file", links=True) as file:
            names = tuple(_parquet(file).schema_arrow.names)
        return _distinct(names, self.path)

    def blocks(self, wanted: Sequence[str]) -> Iterator[Block]:
        with opened(self.path, ".parquet file", links=True) as file:
            parquet, count = _parquet(file), 0
            size, stored = parquet.metadata.num_rows * len(wanted) * 8, os.fstat(file.fileno()).st_size
            if size > max(MOST_UNPACKED, MOST_FACTOR * stored):
                raise DataError(
                    f"{self.path} has {stored:,} bytes and unpacks to {size:,}; the most for so few is "
                    f"{max(MOST_UNPACKED, MOST_FACTOR * stored):,}."
                )
            for batch in parquet.iter_batches(max(1, PIECE_CELLS // max(1, len(wanted))), columns=list(wanted)):
                columns = [_column(batch.column(name), name, self.path) for name in wanted]
                if batch.num_rows:
                    yield Block(columns, range(count + 1, count + batch.num_rows + 1))
                count += batch.num_rows


def _parquet(file: BinaryIO) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError(
            "parquet files are read by the package pyarrow, which is not installed: pip install 'softprune[tables]'"
        ) from error
    return parquet.ParquetFile(file)


def _column(found: "pyarrow.Array", name: str, path: Path) -> Column:
    from pyarrow import compute, types

    kind = found.type.value_type if types.is_dictionary(found.type) else found.type
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        numbers: NDArray[np.float64] = compute.cast(found, "float64", safe=False).to_numpy(zero_copy_only=False)
        return numbers.astype(np.float64)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return ["" if word is None else word for word in found.to_pylist()]
    way_out = "leave it out with `drop`, or store numbers made of it"
    raise DataError(f"{path}: the column {name!r} holds {kind}, neither numbers nor words; {way_out}.")


def _distinct(names: tuple[str, ...], path: Path) -> tuple[str, ...]:
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{path} has {count_of(len(names), 'column')}; the most is {MOST_COLUMNS:,}.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path} has the column {twice[0]!r} {names.count(twice[0])} times; rename one of them.")
    return names
