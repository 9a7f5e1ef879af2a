"""The data sets that torchvision can download, in its folders and with its checksums, read as untrusted files."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.array_files import read_idx
from compress.data.reading import require_regular
from compress.errors import DataError
from compress.files.atomic import remove
from compress.files.foreign import reason
from compress.wording import similar

Arrays = tuple[NDArray[Any], Any]
"""Images and their labels."""

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Of MNIST and of Fashion-MNIST: images and labels to train on, then those to test on."""


def idx_parts(name: str, root: Path) -> list[Arrays]:
    """The training and the test part of a data set of four idx files, downloaded to `root` if need be.

    torchvision is imported for a download only: that takes a second.

    Args:
        name: of torchvision's class, MNIST or a subclass of it.

    Raises:
        DataError: they are absent and cannot be downloaded, some are missing, or one is damaged.
    """
    folder = root / name / "raw"
    files = [folder / file for file in IDX_FILES]
    absent = [file for file in files if not os.path.lexists(file)]
    if len(absent) == len(files):
        if os.path.lexists(folder.with_name("processed")):  # torchvision would unpickle what is there instead
            raise DataError(f"{folder.with_name('processed')} is of an old torchvision and is not read; move it away.")
        from torchvision import datasets

        source = getattr(datasets, name)
        with _torchvision(source, files, temporary=[file.with_name(f"{file.name}.gz") for file in files]):
            source(root, download=True)
    elif absent:  # torchvision would write over the others
        raise DataError(f"{folder} lacks {absent[0].name}; put it there, or move the others away to download them all.")
    return [(read_idx(images, 3), read_idx(labels, 1)) for images, labels in zip(files[::2], files[1::2], strict=True)]


def cifar10_parts(root: Path) -> list[Arrays]:
    """Both parts of CIFAR-10 from pickles whose checksums torchvision knows; it does not load others."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    absent = not os.path.lexists(folder)  # else torchvision would write over what is damaged there
    batches = [folder / name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
    others = [root / CIFAR10.filename, folder / CIFAR10.meta["filename"], folder / "readme.html"]
    with _torchvision(CIFAR10, batches, temporary=others):
        parts = [CIFAR10(root, train=train, download=absent) for train in (True, False)]
    return [(np.asarray(part.data), part.targets) for part in parts]


@contextmanager
def _torchvision(source: Any, present: Sequence[Path], temporary: Sequence[Path]) -> Iterator[None]:
    """The boundary for torchvision's data set class `source` where it downloads.

    `present` are its files, `temporary` those that only a download leaves.
    """
    there = any(file.exists() for file in present)
    for file in temporary:  # which a download would write through a link, or wait for
        if os.path.lexists(file):
            require_regular(file, os.lstat(file).st_mode)
    try:
        with _whole_or_absent([*present, *temporary]), _time_limit(seconds=30):
            yield
    except Exception as error:  # torchvision's are of many types: RuntimeError, URLError, AssertionError, ...
        where = present[0].parent
        if there:
            raise DataError(
                f"{source.__name__} in {where} is damaged or incomplete ({reason(error)}); delete its files there."
            ) from error
        root = where.parents[1]
        near = similar(root) if not root.exists() else None
        why = "its servers were not reached" if "urlopen error" in str(error) else reason(error)
        raise DataError(
            f"{source.__name__} is not in {where}, and downloading it failed ({why}). "
            + (f"Did you mean --data-root {near}? " if near else "")
            + "Point --data-root or COMPRESS_DATA to a folder that has it, or use mnist_sample, which is no download."
        ) from error


@contextmanager
def _whole_or_absent(paths: Sequence[Path]) -> Iterator[None]:
    """Remove those of the files `paths` that the block made, and their folders, if it fails."""
    absent = [path for path in paths if not os.path.lexists(path)]
    folders = {folder for folder in (path.parent for path in absent) if not os.path.lexists(folder)}
    try:
        yield
    except BaseException:
        for path in absent:
            remove(path)
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Limit the wait for a network answer: torchvision sets none, and a silent firewall would hold it for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
