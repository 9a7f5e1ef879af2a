"""The parts of a folder of images: which files belong to training, validation and test, and to which class."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from compress.data.image_folder import class_folders, files_below, require_folder
from compress.data.image_parts import require_count
from compress.data.streaming import Files
from compress.errors import DataError

VALIDATION = ("val", "valid", "validation")
"""The names of the folder of validation images, of which a data set has one at most."""


@dataclass(frozen=True)
class Listed:
    """All files of a folder, class by class and by path."""

    train: Files
    validation: Files | None
    test: Files
    classes: tuple[str, ...]
    note: str | None = None


def listed(directory: Path) -> Listed:
    """The files of `directory`/PART/CLASS/*, or of `directory`/CLASS/*, where parts of each class are held out.

    Raises:
        DataError: a part is missing or a link, parts have other classes, or a class has no image.
    """
    if not ((directory / "train").is_dir() or (directory / "test").is_dir()):
        whole, classes = list_files(directory)
        note = "No test folder: the last sixth of each class, in the order of the file names, is the test set."
        train, test = _hold_out_each(whole, directory, classes)
        return Listed(train, None, test, classes, note)
    names = [name for name in VALIDATION if os.path.lexists(directory / name)]
    if len(names) > 1:
        raise DataError(f"{directory} has the folders {' and '.join(names)}; keep one of them for validation.")
    parts = ["train", *names, *(["test"] if not names or os.path.lexists(directory / "test") else [])]
    for part in parts:
        require_folder(directory / part)
    train, classes = list_files(directory / "train")
    others = {part: files_of_classes(directory / part, classes, "train/") for part in parts[1:]}
    if "test" in others:
        return Listed(train, others.get(names[0]) if names else None, others["test"], classes)
    note = f"No test folder: the images of {names[0]}/ are the test set, and none are kept for validation."
    return Listed(train, None, others[names[0]], classes, note)


def files_of_classes(directory: Path, classes: Sequence[str], of: str) -> Files:
    """The files of a part that needs the same class folders as the training images, which are in `of`."""
    files, found = list_files(directory)
    if found != tuple(classes):
        differing = ", ".join(sorted({*classes} ^ {*found}))
        raise DataError(f"{of} and {directory} need the same class folders; only one has {differing}.")
    return files


def list_files(directory: Path) -> tuple[Files, tuple[str, ...]]:
    """All image files of `directory`/CLASS/*, class by class and by path, with the names of the classes."""
    classes = class_folders(directory)
    paths = [files_below(directory / name) for name in classes]
    if empty := [name for name, found in zip(classes, paths, strict=True) if not found]:
        raise DataError(f"{directory} has no image for the classes {', '.join(empty)}; remove or fill their folders.")
    labels = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor([len(found) for found in paths]))
    return Files(np.array([os.fsencode(path) for found in paths for path in found]), labels), tuple(classes)


def first_files(files: Files, count: int | None, what: str) -> Files:
    """The first `count` files in shuffled order."""
    order = shuffled_rows(len(files.labels))
    if count is None:
        return files.take(order)
    require_count(count, len(order), what)
    return files.take(order[:count])


def shuffled_rows(count: int) -> torch.Tensor:
    """Always the same order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def with_validation(found: Listed, directory: Path, validation: Path) -> Listed:
    """The same with the files of a separate folder for validation."""
    require_one_validation(found, directory)
    return replace(found, validation=files_of_classes(validation, found.classes, str(directory)))


def require_one_validation(found: Listed, directory: Path) -> None:
    """Raise DataError where the folder itself has validation images."""
    if found.validation is not None:
        raise DataError(
            f"{directory} has a folder of validation images, and `validation` names others; remove one of them."
        )


def _hold_out_each(whole: Files, directory: Path, names: Sequence[str]) -> tuple[Files, Files]:
    """The files but the last sixth (at least one) of each class, and those."""
    held_out = torch.zeros(len(whole.labels), dtype=torch.bool)
    for label, name in enumerate(names):
        (rows,) = torch.where(whole.labels == label)
        if len(rows) < 2:
            raise DataError(f"{directory / name} has one image; one to train on and one to test on are needed.")
        held_out[rows[-max(1, len(rows) // 6) :]] = True
    return whole.take(~held_out), whole.take(held_out)
