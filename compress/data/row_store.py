"""Rows of numbers that need not fit into memory: beyond a limit they are in a temporary file, mapped into memory.

The file has no name (or, on Windows, is deleted when it is closed), so nothing of it is left behind. It is in the
folder for temporary files: TMPDIR names another one.
"""

import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from compress.data.array_files import LARGEST_BYTES
from compress.data.sources import memory_limit
from compress.errors import DataError

PIECE_CELLS = 1 << 18
"""Numbers that are in work at once."""


def in_memory() -> int:
    """Bytes of one array that are held in memory by default; reading a table has two at once."""
    return min(LARGEST_BYTES, memory_limit()) // 4


class RowStore:
    """Rows [n, width] that are appended one block after the other.

    limit: bytes up to which they are in memory.
    """

    def __init__(self, width: int, dtype: DTypeLike, limit: int) -> None:
        self._width, self._dtype, self._limit = width, np.dtype(dtype), limit
        self._blocks: list[NDArray[Any]] = []
        self._file: IO[bytes] | None = None
        self._rows = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Raises DataError where the disk is full."""
        block = np.ascontiguousarray(rows, self._dtype)
        self._rows += len(block)
        self._blocks.append(block)
        if self._file is not None or self._rows * self._width * self._dtype.itemsize > self._limit:
            self._write()

    def array(self) -> NDArray[Any]:
        """All rows. Changes of them stay in memory."""
        if self._file is None:
            return np.concatenate([np.empty((0, self._width), self._dtype), *self._blocks])
        self._file.flush()
        # A private mapping can be written to, as torch asks of arrays, and does not change the file.
        return np.memmap(self._file, self._dtype, mode="c", shape=(self._rows, self._width))

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the array
            # Written, not mapped: a full disk is then an error, and not a signal that ends the process.
            for block in self._blocks:
                self._file.write(block.data)
        except OSError as error:
            raise DataError(
                f"Data beyond {self._limit:,} bytes are kept in a temporary file in {tempfile.gettempdir()}, which "
                f"cannot be written ({error.strerror}); name a folder with more room by TMPDIR."
            ) from error
        self._blocks.clear()


def stored(blocks: Iterable[NDArray[Any]], width: int, dtype: DTypeLike, limit: int) -> Tensor:
    """The rows of all blocks as one tensor [n, width]. Raises DataError where the disk is full."""
    store = RowStore(width, dtype, limit)
    for block in blocks:
        store.append(block)
    return torch.from_numpy(store.array())


def pieces(rows: NDArray[np.int64], width: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers in pieces that are small enough to work on rows of `width` numbers."""
    size = max(1, PIECE_CELLS // max(1, width))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
