"""Long series as data sets: windows over the rows of a table in the order of time.

The windows are views of the rows, which are kept once, however much the windows overlap.
"""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from compress.data.array_dataset import ONLY, ArrayDataset, Samples, digest
from compress.data.preparation import Series
from compress.data.table_columns import Layout, TableSettings, layout_of, read_rows, require_columns
from compress.data.table_files import TableFile
from compress.data.table_samples import Making
from compress.data.table_statistics import Rows, fitted
from compress.data.tables import Validation, in_memory
from compress.errors import DataError
from compress.wording import count_of


@dataclass(frozen=True)
class Windows:
    """Which rows of a series make a sample.

    window: rows of the input.
    horizon: rows after them that are to be predicted.
    stride: rows from one window's start to the next.
    """

    window: int
    horizon: int
    stride: int = 1

    @property
    def rows(self) -> int:
        return self.window + self.horizon

    def count(self, rows: int) -> int:
        """How many windows with their horizons are in so many rows."""
        return max(0, (rows - self.rows) // self.stride + 1)

    def last_row(self, count: int) -> int:
        """Rows that the first `count` windows take, with their horizons."""
        return (count - 1) * self.stride + self.rows

    @property
    def overlap(self) -> int:
        """Windows before another one whose horizons have rows in common with its own."""
        return -(-self.horizon // self.stride) - 1


def from_series(
    file: TableFile,
    test_file: TableFile | None,
    windows: Windows,
    settings: TableSettings | None = None,
    *,
    validation: Validation = None,
    train: int | None = None,
    test: int | None = None,
    limit: int | None = None,
) -> ArrayDataset:
    """A data set of windows over a table whose rows are in the order of time.

    Inputs are float32 [N, window, columns], all columns that are not dropped, the targets first. Targets are
    [N, horizon, targets], scaled like the inputs; without `settings.target` they are all columns of numbers. Nothing is
    shuffled: without `test_file` the rows to be predicted in the test part are the last sixth, and `note` says so.
    Windows before them reach back into the training rows; no training window has a row of theirs. Statistics are those
    of the rows of the training windows.

    Args:
        validation: a share of the training rows, the last ones; or a file.
        train, test: how many windows of each part are used, the first ones.
        limit: as in `compress.data.tables.from_table`.

    Raises:
        DataError: as `from_table`; or there are fewer rows than one window takes, or a target is not a number.
        MissingPackageError: as `from_table`.
    """
    settings, limit = settings or TableSettings(), in_memory() if limit is None else limit
    layout, targets = _layout(file, settings)
    rows = read_rows(file, layout, settings, limit)
    ends = _ends(len(rows), test_file is not None, validation, windows, file)
    count = _limited(windows.count(ends[0]), train, f"{file.path}: train")
    table = fitted(layout, settings, rows, np.arange(windows.last_row(count)))
    making = Making(layout, table, limit)
    matrix = _matrix(making, rows)

    def part(source: TableFile | Validation, start: int, end: int, wanted: int | None, what: str) -> Samples:
        """Windows that predict rows from `start` to `end` of the training file, or all those of another one."""
        if source is None or isinstance(source, float):
            found = matrix[max(0, start - windows.window) : end]
        else:
            found = _matrix(making, read_rows(source, layout, settings, limit))
        name = f"{file.path if source is None or isinstance(source, float) else source.path}: {what}"
        _require_rows(len(found), windows, name)
        return _samples(found, windows, targets, _limited(windows.count(len(found)), wanted, name))

    trained = _samples(matrix[: ends[0]], windows, targets, count)
    chosen_on = None if validation is None else part(validation, ends[0], ends[1], None, "validation")
    tested = part(test_file, ends[1], len(rows), test, "test")
    note = f"No test file: the test set predicts the last {len(rows) - ends[1]:,} of {count_of(len(rows), 'row')}."
    return ArrayDataset(
        file.path.name,
        trained,
        tested,
        Series(table.columns, table.unknown, windows.window, windows.horizon, targets),
        digest(trained, chosen_on, tested),
        validation=chosen_on,
        note=note if test_file is None else None,
        overlap=windows.overlap,
    )


def _layout(file: TableFile, settings: TableSettings) -> tuple[Layout, int]:
    """All columns that are used, the targets first, and the number of these."""
    require_columns(file, file.names(), settings.target, "target")
    found = layout_of(file, replace(settings, target=()))
    targets = settings.target or tuple(name for name in found.inputs if name not in found.categories)
    if wrong := [name for name in targets if name not in found.inputs or name in found.categories]:
        raise DataError(
            f"{file.path}: the target {wrong[0]!r} is categorical or dropped; in a series it is a column of numbers, "
            f"and an input too."
        )
    if not targets:
        raise DataError(f"{file.path} has no column of numbers to predict.")
    return replace(found, inputs=targets + tuple(name for name in found.inputs if name not in targets)), len(targets)


def _ends(rows: int, has_test_file: bool, validation: Validation, windows: Windows, file: TableFile) -> tuple[int, int]:
    """The row after the training part, and that after the validation part."""
    test = 0 if has_test_file else max(1, windows.horizon, rows // 6)
    end = rows - test
    held_out = max(windows.horizon, round(validation * end)) if isinstance(validation, float) else 0
    if windows.count(end - held_out) < 1:
        raise DataError(
            f"{file.path} has {count_of(rows, 'row')}, of which {end - held_out:,} are to train on, and a window of "
            f"{count_of(windows.window, 'row')} with the {windows.horizon:,} after it takes {windows.rows:,}; add "
            "rows, or set a smaller `window` or `horizon`."
        )
    return end - held_out, end


def _require_rows(rows: int, windows: Windows, what: str) -> None:
    if windows.count(rows) < 1:
        raise DataError(
            f"{what} has {count_of(rows, 'row')}, and a window of {count_of(windows.window, 'row')} with the "
            f"{windows.horizon:,} after it "
            f"takes {windows.rows:,}; add rows, or set a smaller `window` or `horizon`."
        )


def _limited(count: int, wanted: int | None, what: str) -> int:
    if wanted is not None and wanted > count:
        raise DataError(f"{what} asks for {wanted:,} of {count_of(count, 'sample')}.")
    return count if wanted is None else wanted


def _matrix(making: Making, rows: Rows) -> Tensor:
    """All rows as the network sees them, float32 [rows, columns]."""
    return making.inputs(rows, np.arange(len(rows)), range(len(making.table.columns)))


def _samples(matrix: Tensor, windows: Windows, targets: int, count: int) -> Samples:
    inputs = matrix.unfold(0, windows.window, windows.stride)[:count].transpose(1, 2)
    after = matrix[windows.window :, :targets].unfold(0, windows.horizon, windows.stride)[:count].transpose(1, 2)
    return Samples({ONLY: inputs}, after)
