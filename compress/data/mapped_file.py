"""Rows of numbers that arrive in pieces and may be more than memory holds: beyond a limit they go into a file.

The file has no name, is in the folder for temporary files (TMPDIR), and is mapped into memory: the system reads the
rows when they are used, and drops them when it needs the memory for something else.
"""

import math
import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from compress.errors import DataError
from compress.files.foreign import reason

SMALL = 64 << 20
"""Bytes of rows that are held in memory, whatever the machine has."""

PIECE = 4 << 20
"""Bytes of rows that `in_order` copies at once."""


class GrowingRows:
    """Rows of one shape and dtype; `append` pieces, then take them all as one `tensor`.

    row: the shape of one row; () for single numbers.
    most: bytes that are held in memory; more of them go into the file.
    """

    def __init__(self, row: Sequence[int], dtype: DTypeLike, most: int = SMALL) -> None:
        self._row, self._dtype, self._most = tuple(row), np.dtype(dtype), most
        self._pieces: list[NDArray[Any]] = []
        self._file: IO[bytes] | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    def append(self, rows: NDArray[Any]) -> None:
        """Add `rows` [n, *row], converted to the dtype. Raises DataError where the file cannot grow."""
        rows = np.ascontiguousarray(rows, self._dtype).reshape(-1, *self._row)
        self._count += len(rows)
        if self._file is None:
            self._pieces.append(rows)
            if self._count * self._row_bytes <= self._most:
                return
            rows, self._pieces = np.concatenate(self._pieces), []
        self._write(rows)

    def tensor(self) -> Tensor:
        """All rows [n, *row]: in memory, or mapped. Changes of a mapped tensor do not reach the file."""
        shape = self._count, *self._row
        if self._file is None:
            return torch.from_numpy(np.concatenate([np.empty((0, *self._row), self._dtype), *self._pieces]))
        self._file.flush()
        return torch.from_numpy(np.memmap(self._file, self._dtype, mode="c", shape=shape))

    @property
    def _row_bytes(self) -> int:
        return math.prod(self._row) * self._dtype.itemsize

    def _write(self, rows: NDArray[Any]) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the rows
                weakref.finalize(self, self._file.close)  # the mapped tensors keep what they need of it
            self._file.write(rows.data)
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"the data do not fit into memory, and {tempfile.gettempdir()} has no room for them "
                f"({reason(error)}) after {os.fstat(self._file.fileno()).st_size if self._file else 0:,} bytes; set "
                "TMPDIR to a folder on a larger disk"
            ) from error


def in_order(tensor: Tensor, rows: Tensor, most: int = SMALL) -> Tensor:
    """`tensor[rows]`, in memory or, beyond `most` bytes, in a file: copied piece by piece."""
    grown = GrowingRows(tensor.shape[1:], tensor.numpy().dtype, most)
    for piece in torch.split(rows, max(1, PIECE // max(1, tensor[:1].nbytes))):
        grown.append(tensor[piece].numpy())
    return grown.tensor()
