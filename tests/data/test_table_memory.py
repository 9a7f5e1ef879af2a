"""A table that is larger than the memory it may take: read, standardised and iterated over from a file."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.data.series import Windows, from_series
from compress.data.table_columns import TableSettings
from compress.data.table_files import CsvFile
from compress.data.tables import from_table

STATM = Path("/proc/self/statm")

MOST = 200 << 20
"""Bytes by which the process may grow: some blocks of words, of numbers and of rows, whatever the size of the table."""

pytestmark = pytest.mark.skipif(not STATM.exists(), reason="asks Linux how much memory is anonymous")


def anonymous() -> int:
    """Bytes of memory that no file backs."""
    resident, shared = map(int, STATM.read_text(encoding="ascii").split()[1:3])
    return (resident - shared) * resource.getpagesize()


@contextmanager
def growth() -> Iterator[list[int]]:
    """The one number in it is how many bytes the process has grown by, at the most."""
    before, found, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            found[0] = max(found[0], anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


@pytest.fixture(scope="module")
def block() -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, (5000, 20)).round(9)


def repeated(path: Path, block: np.ndarray, times: int) -> CsvFile:
    """The rows of the block again and again, with a category and a class."""
    lines = [",".join(map(repr, row)) + f",{'abcde'[n % 5]},{n % 3}\n" for n, row in enumerate(block.tolist())]
    text = "".join(lines)
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join([*(f"c{number}" for number in range(20)), "kind", "y"]) + "\n")
        for _ in range(times):
            file.write(text)
    return CsvFile(path)


@pytest.mark.parametrize(
    "times", [pytest.param(20, marks=pytest.mark.extended), pytest.param(250, marks=pytest.mark.slow)]
)
def test_memory_does_not_grow_with_the_table(tmp_path: Path, block: np.ndarray, times: int) -> None:
    """20 MB of csv, and 270 MB, whose rows take 215 MB as float64 and 120 MB as they are used."""
    file = repeated(tmp_path / "large.csv", block, times)
    with growth() as grown:
        found = from_table(file, file, TableSettings(("y",), ("kind",)), limit=1 << 20)
        batches = found.batches("train", 256, "classify")(torch.Generator().manual_seed(0))
        total = sum(given.tensors[0].sum(0).double() for given, _ in batches)
    assert found.count("train") == 5000 * times
    assert grown[0] < MOST
    described = found.preparation.described()["columns"]
    np.testing.assert_allclose([column["mean"] for column in described[:20]], block.mean(0))
    np.testing.assert_allclose([column["std"] for column in described[:20]], block.std(0))
    np.testing.assert_allclose(total[:20] / found.count("train"), 0, atol=1e-5)
    np.testing.assert_allclose(total[20:] / found.count("train"), 0.2, atol=1e-5)


@pytest.mark.extended
def test_windows_take_no_memory(tmp_path: Path, block: np.ndarray) -> None:
    """100,000 rows as 99,000 windows of 1,000 rows: 10 GB, if they were copied, and as much to hash."""
    file = repeated(tmp_path / "long.csv", block, 20)
    settings = TableSettings(("c0",), ("kind",), ("y",))
    with growth() as grown:
        found = from_series(file, file, Windows(1000, 10), settings, limit=1 << 20)
        given, targets = next(iter(found.batches("train", 16, "forecast")(torch.Generator().manual_seed(0))))
    assert (found.count("train"), given.tensors[0].shape) == (98_991, (16, 1000, 25))
    assert targets.shape == (16, 10, 1)
    assert grown[0] < MOST
