"""Tables as data sets: a row is a sample."""

from typing import TypedDict

import numpy as np
import torch

from compress.data.array_dataset import ArrayDataset, Samples, digest
from compress.data.attributes import require_known
from compress.data.mapped_file import SMALL
from compress.data.preparation import NumberColumn, Table
from compress.data.sources import memory_limit
from compress.data.table_columns import MOST_GUESSED, Layout, TableSettings, layout_of, read_rows
from compress.data.table_files import TableFile
from compress.data.table_samples import Making
from compress.data.table_statistics import Numbers, Rows, fitted
from compress.data.validation import held_out_count
from compress.errors import DataError
from compress.wording import count_of

Validation = float | TableFile | None
"""What settings are chosen on: a share in (0, 1) of the training rows, a separate file, or None."""


class Parts(TypedDict):
    """What the parts of a data set are, beside its test file."""

    validation: Validation
    train: int | None
    test: int | None


LOOKED_AT = 10_000
"""Rows at the start of the file; a column whose whole numbers differ in all of them is taken for an identifier."""

FEW = 20
"""In fewer rows, whole numbers may all differ by chance."""


def from_table(
    file: TableFile,
    test_file: TableFile | None = None,
    settings: TableSettings | None = None,
    *,
    validation: Validation = None,
    train: int | None = None,
    test: int | None = None,
    limit: int | None = None,
) -> ArrayDataset:
    """A data set of the rows of a table.

    Rows are shuffled, always in the same way. Without `test_file` the last sixth of them is the test set, and `note`
    says so. Statistics are those of the training rows; categories and classes those of the whole file.

    Args:
        train, test: how many rows of each part are used, the first ones after shuffling.
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
    if test_file is None and len(rows) < 2:
        raise DataError(f"{file.path} has one row; one to train on and one to test on are needed.")
    _require_target(layout, settings, file)
    order, test_order = _shuffled(len(rows)), None
    notes = _identifiers(layout, rows)
    if test_file is None:
        held_out = max(1, len(rows) // 6)
        order, test_order = order[:-held_out], order[-held_out:]
        notes.insert(
            0, f"No test file: the test set is {held_out:,} of {count_of(len(rows), 'row')}, chosen at random."
        )
    order = first(order, train, f"{file.path}: train")
    validation_order = None
    if isinstance(validation, float):
        count = held_out_count(validation, len(order), str(file.path))
        order, validation_order = order[:-count], order[-count:]
    table = fitted(layout, settings, rows, order)
    making = Making(layout, table, limit)

    def part(source: TableFile | None, chosen: Numbers | None, count: int | None, what: str) -> Samples:
        """The rows of a separate file, or those chosen from the training file."""
        found = rows if source is None else read_rows(source, layout, settings, limit)
        chosen = _shuffled(len(found)) if chosen is None else chosen
        return making.samples(found, first(chosen, count, f"{(source or file).path}: {what}"))

    trained, tested = part(None, order, None, "train"), part(test_file, test_order, test, "test")
    chosen_on = None
    if validation is not None:
        chosen_on = part(None if isinstance(validation, float) else validation, validation_order, None, "validation")
    for found in [tested, *([chosen_on] if chosen_on else [])]:
        require_known(trained.attributes, found.attributes, str(file.path))
    names = _class_names(table)
    if names is not None:
        _require_trained_classes(names, trained, [tested, *([chosen_on] if chosen_on else [])], file)
    return ArrayDataset(
        file.path.name,
        trained,
        tested,
        table,
        digest(trained, chosen_on, tested),
        validation=chosen_on,
        classes=None if names is None else len(names),
        class_names=names,
        note=" ".join(notes) or None,
    )


def in_memory() -> int:
    """Bytes of one array that are held in memory by default; while a table is read there are several."""
    return max(SMALL, memory_limit() // 8)


def _shuffled(count: int) -> Numbers:
    found: Numbers = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    return found


def first(order: Numbers, count: int | None, what: str) -> Numbers:
    """The first `count` of them. Raises DataError where there are fewer."""
    if count is not None and count > len(order):
        raise DataError(f"{what} asks for {count:,} of {count_of(len(order), 'sample')}.")
    return order[:count]


def _require_target(layout: Layout, settings: TableSettings, file: TableFile) -> None:
    """Raise DataError where it is not clear what the target is, or it is constant."""
    if len(layout.targets) != 1:
        if settings.classes:
            raise DataError(f"{file.path}: `classes: true` is for one target column; there are {len(layout.targets)}.")
        return
    (name,) = layout.targets
    known = layout.categories.get(name)
    if known is None and settings.classes is None and not layout.fractions and len(layout.whole) > MOST_GUESSED:
        raise DataError(
            f"{file.path}: the target {name!r} has more than {MOST_GUESSED} different whole numbers; say whether they "
            f"are classes: `classes: true`, or `classes: false` for quantities."
        )
    found = len(layout.whole) if known is None else len(known.numbers)
    if found == 1:
        raise DataError(f"{file.path}: the target {name!r} is the same in all rows; there is nothing to predict.")


def _class_names(table: Table) -> tuple[str, ...] | None:
    if len(table.targets) != 1 or isinstance(table.targets[0], NumberColumn):
        return None
    return table.targets[0].categories


def _require_trained_classes(names: tuple[str, ...], train: Samples, others: list[Samples], file: TableFile) -> None:
    """Raise DataError where a class has samples, but none to train on."""
    trained, *found = [np.unique(part.targets.numpy()) for part in (train, *others) if part.targets is not None]
    for labels in found:
        for label in np.setdiff1d(labels, trained)[:1]:
            raise DataError(
                f"{file.path}: the class {names[label]!r} has no training row, and is in another part; add rows of it, "
                f"or give the test rows in a file of their own."
            )


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
