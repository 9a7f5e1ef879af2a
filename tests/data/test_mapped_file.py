"""Rows in memory and rows in a mapped file are the same rows; memory remains bounded."""

import errno
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data.mapped_file import GrowingRows, in_order
from compress.errors import DataError


@pytest.mark.parametrize("row", [(), (3,), (2, 3)])
@pytest.mark.parametrize("most", [0, 60, 10**9])
def test_rows_are_those_that_were_appended(row: tuple[int, ...], most: int) -> None:
    rng = np.random.default_rng(0)
    pieces = [rng.integers(-100, 100, (count, *row)) for count in (4, 0, 1, 30)]
    grown = GrowingRows(row, np.int16, most)
    for piece in pieces:
        grown.append(piece)
    assert len(grown) == 35
    assert grown.on_disk == (most < 70)
    assert grown.tensor().dtype == torch.int16
    assert np.array_equal(grown.tensor().numpy(), np.concatenate(pieces))


def test_a_mapped_tensor_keeps_its_file_and_can_be_changed() -> None:
    grown = GrowingRows((2,), np.int32, 0)
    grown.append(np.arange(10).reshape(5, 2))
    first, second = grown.tensor(), grown.tensor()
    del grown
    first[0, 0] = 77
    assert (first[0, 0], second[0, 0], second[4, 1]) == (77, 0, 9)


def test_no_row_is_an_empty_tensor() -> None:
    assert GrowingRows((4,), np.int8).tensor().shape == (0, 4)


@pytest.mark.parametrize("most", [0, 10**9])
def test_rows_in_another_order(most: int) -> None:
    tensor = torch.arange(300_000, dtype=torch.int32).reshape(-1, 3)
    rows = torch.randperm(100_000, generator=torch.Generator().manual_seed(0))[:70_000]
    assert torch.equal(in_order(tensor, rows, most), tensor[rows])


def test_a_full_disk_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, content: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

        def fileno(self) -> int:
            return file.fileno()

    with tempfile.TemporaryFile() as file:
        monkeypatch.setattr(tempfile, "TemporaryFile", Full)
        with pytest.raises(DataError, match=r"the disk is full.*after 0 bytes; set TMPDIR to a folder"):
            GrowingRows((), np.int8, 0).append(np.zeros(3))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory is anonymous")
def test_memory_stays_bounded() -> None:
    """200 MB of rows, which remain in the file: the process's own memory grows by a few pieces at most."""

    def anonymous() -> int:
        resident, shared = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split()[1:3])
        return (resident - shared) * resource.getpagesize()

    piece, before = np.ones((1000, 1000), np.int16), anonymous()
    grown = GrowingRows((1000,), np.int16, 10 << 20)
    for _ in range(100):
        grown.append(piece)
    assert int(in_order(grown.tensor(), torch.arange(99_999, -1, -1), 10 << 20)[::1000].sum()) == 100_000
    assert anonymous() - before < 100 << 20
