"""The image files of a folder by class: regular files below its class folders, and never through links.

A link could put the images of one class into another (`a/loop -> ..`), or name files outside of the folder; so links
are refused wherever they lead. Hidden files and folders are skipped, and everything else must be an image.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from compress.data.reading import boundary
from compress.errors import DataError
from compress.files.bounded import kind

LEFT_BY_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""Files that Windows and macOS put into folders, beside names that begin with a dot."""


def class_folders(directory: Path) -> list[str]:
    """The names of the folders in `directory`, in their order. Files beside them belong to no class.

    Raises:
        DataError: it has none, one is a link, or `directory` is absent, a file or unreadable.
    """
    found = sorted(entry.name for entry in _entries(directory) if _is_folder(entry))
    if not found:
        raise DataError(f"{directory} has no class folder; put the images of each class into a folder of its own.")
    return found


def files_below(folder: Path) -> list[str]:
    """The paths of all files in `folder` and below it, folder by folder and by name.

    Raises:
        DataError: something there is neither a regular file nor a folder, or cannot be listed.
    """
    found: list[tuple[str, str]] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        for entry in _entries(here):
            if _is_folder(entry):
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                found.append((str(here), entry.name))
            else:
                raise DataError(
                    f"{entry.path} is {kind(entry.stat(follow_symlinks=False).st_mode)}; a class folder may have "
                    f"images and folders only. Move it out of the folder."
                )
    return [os.path.join(*parts) for parts in sorted(found)]


def require_folder(directory: Path) -> None:
    """Raise DataError where `directory` is a link."""
    if directory.is_symlink():
        raise DataError(f"{directory} is a link; only folders within the data set are read. Put a real folder there.")


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of `directory` that are not hidden; DataError for a link."""
    with boundary(directory, "folder of images"), os.scandir(str(directory)) as entries:
        listed = list(entries)
    for entry in listed:
        if entry.name.startswith(".") or entry.name.lower() in LEFT_BY_SYSTEMS:
            continue
        if entry.is_symlink():
            raise DataError(
                f"{entry.path} is a link; only files and folders within the data set are read. Put copies of the "
                f"images there (cp -L), or hard links."
            )
        yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with boundary(entry.path, "folder of images"):
        return stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)
