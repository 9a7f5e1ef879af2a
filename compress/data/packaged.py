"""Data sets that are plain files inside Python packages: two tables and a set of series.

The packages are not imported: that would take seconds, and need all that they depend on. `validation` is a share of
the training part, its last samples; `train` and `test` limit a part to its first samples, after that.
"""

import gzip
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.batches import Subset
from compress.data.array_dataset import ONLY, ArrayDataset, Samples, digest
from compress.data.preparation import Arrays, CategoryColumn, NumberColumn, Preparation, Scale, Table
from compress.data.reading import opened
from compress.data.validation import held_out_count
from compress.errors import DataError
from compress.wording import count_of

MOST_BYTES = 64 << 20
"""The most that a file may unpack to; the largest of these has 1.4 MB."""

STATISTICS = ("mean", "error of", "worst")
MEASURED = (
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave points", "symmetry", "fractal dimension"),
)
"""The columns of `breast_cancer` are each statistic of all that is measured; its file does not name them."""

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]
"""Which samples of a file."""


def shuttle(*, validation: float | None = None, train: int | None = None, test: int | None = None) -> ArrayDataset:
    """Statlog (Shuttle): 49,097 rows of 9 sensor values, 7 % of them anomalies, from the package river.

    Targets are 0 (normal) and 1 (anomaly). The rows are always shuffled in the same way; the last 10,000 are the test
    part. Columns are standardised by the normal rows of the training part alone.

    Raises:
        DataError: river is not installed, or its file is damaged.
    """
    path = packaged("shuttle", "river", "datasets/shuttle.csv.gz")
    header, *lines = _lines(path)
    columns, names = header.split(","), ("normal", "anomaly")
    if len(columns) != 10 or columns[-1] != "anomaly":
        raise DataError(f"{path}, line 1: found {header[:100]!r}; expected the names of 9 columns, then anomaly.")
    rows, labels = _labelled(lines, len(columns), names, path)
    parts = _parted("shuttle", rows, labels, 10_000, _Wanted(validation, train, test))
    seen, flags = parts["train"]
    return _table("shuttle", parts, _scale(seen[flags == 0]), columns, names)


def breast_cancer(
    *, validation: float | None = None, train: int | None = None, test: int | None = None
) -> ArrayDataset:
    """Breast cancer Wisconsin (diagnostic): 569 rows of 30 measurements, two classes, from the package scikit-learn.

    The rows are always shuffled in the same way; the last 169 are the test part. Columns are standardised by the
    training part.

    Raises:
        DataError: scikit-learn is not installed, or its file is damaged.
    """
    path = packaged("breast_cancer", "sklearn", "datasets/data/breast_cancer.csv", install="scikit-learn")
    header, *lines = _lines(path)
    columns = [f"{statistic} {what}" for statistic in STATISTICS for what in MEASURED]
    count, width, *names = header.split(",") if header.count(",") == 3 else ("", "")
    if [count, width] != [f"{len(lines)}", f"{len(columns)}"]:
        raise DataError(
            f"{path}, line 1: found {header[:100]!r}; expected {len(lines)} (the number of rows), {len(columns)} and "
            "the names of two classes."
        )
    rows, labels = _labelled(lines, len(columns) + 1, names, path)
    parts = _parted("breast_cancer", rows, labels, 169, _Wanted(validation, train, test))
    return _table("breast_cancer", parts, _scale(parts["train"][0]), [*columns, "diagnosis"], tuple(names))


def japanese_vowels(
    *, validation: float | None = None, train: int | None = None, test: int | None = None
) -> ArrayDataset:
    """Japanese vowels: which of 9 speakers it is, by 7 to 29 steps of 12 coefficients, from the package aeon.

    270 series to train on, 370 to test on. `inputs` are [N, 29, 12], zero after the last step, and `lengths` [N] the
    numbers of steps. Channels are standardised by all steps of the training part. The training series, which the file
    has sorted by speaker, are always shuffled in the same way.

    Raises:
        DataError: aeon is not installed, or one of its files is damaged.
    """
    folder = "datasets/data/JapaneseVowels"
    paths = [packaged("japanese_vowels", "aeon", f"{folder}/JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")]
    trained, tested = (_series(path) for path in paths)
    if trained.names != tested.names or trained.channels != tested.channels:
        raise DataError(f"{paths[1]}: its classes or channels are not those of {paths[0].name}.")
    wanted = _Wanted(validation, train, test)
    places = wanted.places("japanese_vowels", _shuffled(len(trained.series)), np.arange(len(tested.series)))
    steps = max(len(one) for one in (*trained.series, *tested.series))
    scale = _scale(np.concatenate([trained.series[place] for place in places["train"]]))
    samples = {
        part: (tested if part == "test" else trained).samples(chosen, steps, scale) for part, chosen in places.items()
    }
    return _dataset("japanese_vowels", samples, Arrays({"inputs": scale, "lengths": None}), trained.names)


def packaged(name: str, package: str, file: str, *, install: str | None = None) -> Path:
    """The path of `file` inside an installed package, which is not imported.

    Args:
        name: of the data set, for the error text.
        install: the name of the package for pip, if it differs.

    Raises:
        DataError: the package is not installed, or has no such file.
    """
    spec, distribution = importlib.util.find_spec(package), install or package
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{name} is a file in the package {distribution}, which is not installed: pip install --no-deps "
            f"{distribution} (only the file is used), or pip install 'softprune[samples]'"
        )
    for folder in spec.submodule_search_locations:
        if (path := Path(folder, file)).exists():
            return path
    raise DataError(
        f"{name} is the file {file} in the package {distribution}, and the installed version does not have it: install "
        "another version"
    )


# --- reading ---


def _lines(path: Path) -> list[str]:
    """The lines of a text file, which may be compressed by gzip; at least one."""
    with opened(path, "text file", links=True) as file:
        stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise DataError(
                f"{path} unpacks to more than {MOST_BYTES:,} bytes; it is not the file that the package has."
            )
        lines = content.decode("utf-8").splitlines()
    if not lines:
        raise DataError(f"{path} is empty; install its package again.")
    return lines


def _labelled(lines: Sequence[str], width: int, names: Sequence[str], path: Path) -> tuple[Numbers, NDArray[np.int64]]:
    """The values and, from the last column, the labels of a table from its second line on."""
    if not lines:
        raise DataError(f"{path} has no row below its first line; install its package again.")
    rows = np.stack([_numbers(line, width, f"{path}, line {number}") for number, line in enumerate(lines, 2)])
    wrong = np.flatnonzero(~np.isin(rows[:, -1], range(len(names))))
    if len(wrong):
        raise DataError(
            f"{path}, line {wrong[0] + 2}: found the class {rows[wrong[0], -1]:g}; expected 0 to {len(names) - 1}."
        )
    return rows[:, :-1], rows[:, -1].astype(np.int64)


def _numbers(text: str, count: int | None, where: str) -> Numbers:
    """Finite numbers, separated by commas; `count` of them."""
    try:
        found = np.array([float(word) for word in text.split(",")])
    except ValueError as error:
        raise DataError(f"{where}: {error}; the file is damaged.") from error
    if count is not None and len(found) != count:
        raise DataError(f"{where}: found {count_of(len(found), 'value')}; expected {count}.")
    if not np.isfinite(found).all():
        raise DataError(f"{where}: found a value that is not finite; the file is damaged.")
    return found


@dataclass(frozen=True)
class _Series:
    series: list[Numbers]  # each [steps, channels]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    channels: int

    def samples(self, places: Places, steps: int, scale: Scale) -> Samples:
        """The series at these places, scaled, then padded with zeros to `steps`."""
        chosen = [self.series[place] for place in places]
        inputs = torch.zeros(len(chosen), steps, self.channels)
        for row, one in zip(inputs, chosen, strict=True):
            row[: len(one)] = _scaled(one, scale)
        lengths = torch.tensor([len(one) for one in chosen])
        return Samples({"inputs": inputs, "lengths": lengths}, torch.from_numpy(self.labels[places]))


def _series(path: Path) -> _Series:
    """A file of series of unequal lengths in the format .ts: "@" keys, then channels and class, separated by colons."""
    lines = _lines(path)
    keys = {words[0]: words[1:] for line in lines if line.startswith("@") and (words := line.split())}
    start = next((number for number, line in enumerate(lines, 1) if line.strip() == "@data"), None)
    dimensions, classes = keys.get("@dimensions", []), keys.get("@classLabel", [])
    if start is None or len(dimensions) != 1 or not dimensions[0].isdigit() or classes[:1] != ["true"]:
        raise DataError(f"{path} is not a .ts file with classes: it needs @dimensions, @classLabel true and @data.")
    channels, names = int(dimensions[0]), tuple(classes[1:])
    series, labels = [], []
    for number, line in enumerate(lines[start:], start + 1):
        *texts, label = line.split(":")
        where = f"{path}, line {number}"
        if len(texts) != channels or label not in names:
            raise DataError(
                f"{where}: found {count_of(len(texts), 'channel')} and the class {label[:20]!r}; expected {channels} "
                f"and one of {', '.join(names)}."
            )
        first, *others = (_numbers(text, None, where) for text in texts)
        if any(len(one) != len(first) for one in others):
            raise DataError(f"{where}: its channels have different lengths; the file is damaged.")
        series.append(np.stack([first, *others], 1))
        labels.append(names.index(label))
    if not series:
        raise DataError(f"{path} has no series after @data.")
    return _Series(series, np.array(labels), names, channels)


# --- parts ---


@dataclass(frozen=True)
class _Wanted:
    """How many samples each part has."""

    validation: float | None
    train: int | None
    test: int | None

    def places(self, name: str, train: Places, test: Places) -> dict[Subset, Places]:
        """The samples of each part, of those that are in either part of the data set `name`."""
        found: dict[Subset, Places] = {}
        if self.validation is not None:
            held_out = held_out_count(self.validation, len(train), name)
            train, found["validation"] = train[:-held_out], train[-held_out:]
        found["train"] = _first(train, self.train, f"{name}: train")
        found["test"] = _first(test, self.test, f"{name}: test")
        return found


def _first(places: Places, count: int | None, what: str) -> Places:
    if count is not None and count > len(places):
        raise DataError(f"{what} asks for the first {count:,} of {count_of(len(places), 'sample')}.")
    return places[:count]


def _shuffled(count: int) -> Places:
    return np.random.default_rng(0).permutation(count)


def _parted(
    name: str, rows: Numbers, labels: NDArray[np.int64], held_out: int, wanted: _Wanted
) -> dict[Subset, tuple[Numbers, NDArray[np.int64]]]:
    """The parts of a table that is one file; after shuffling, the last `held_out` rows are the test part."""
    if len(rows) <= held_out:
        raise DataError(
            f"{name} has {count_of(len(rows), 'row')}, of which {held_out} are the test part; the file is damaged."
        )
    order = _shuffled(len(rows))
    places = wanted.places(name, order[:-held_out], order[-held_out:])
    return {part: (rows[chosen], labels[chosen]) for part, chosen in places.items()}


def _scale(rows: Numbers) -> Scale:
    """Of rows [N, columns]; a column of one value is divided by 1."""
    std = rows.std(0)
    return Scale(tuple(rows.mean(0).tolist()), tuple(np.where(std == 0, 1, std).tolist()))


def _scaled(rows: Numbers, scale: Scale) -> Tensor:
    return torch.from_numpy(((rows - scale.mean) / scale.std).astype(np.float32))


def _table(
    name: str,
    parts: dict[Subset, tuple[Numbers, NDArray[np.int64]]],
    scale: Scale,
    columns: Sequence[str],
    names: tuple[str, ...],
) -> ArrayDataset:
    """columns: the last of them is the target, whose classes are `names`."""
    samples = {
        part: Samples({ONLY: _scaled(rows, scale)}, torch.from_numpy(labels)) for part, (rows, labels) in parts.items()
    }
    *inputs, target = columns
    numbers = tuple(NumberColumn(*column) for column in zip(inputs, scale.mean, scale.std, strict=True))
    return _dataset(name, samples, Table(numbers, False, False, (CategoryColumn(target, names),)), names)


def _dataset(
    name: str, samples: dict[Subset, Samples], preparation: Preparation, names: tuple[str, ...]
) -> ArrayDataset:
    train, chosen_on, test = samples["train"], samples.get("validation"), samples["test"]
    return ArrayDataset(
        name,
        train,
        test,
        preparation,
        digest(train, chosen_on, test),
        validation=chosen_on,
        classes=len(names),
        class_names=names,
    )
