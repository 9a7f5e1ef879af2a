"""Writes files whole or not at all, and replaces or removes nothing but files."""

import io
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from compress.errors import InputError, OutputError
from compress.options import shown
from compress.wording import because


def require_path(what: str, path: object) -> None:
    """Raise InputError unless it is the name of a file."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InputError(f"{what}: found {shown(path)}; expected the path of a file")


TEMPORARY = re.compile(r"\.softprune-[0-9a-f]{32}(\.\w+)?")
"""The names of drafts that a killed process may leave; nothing reads them."""


@contextmanager
def atomic(path: str | os.PathLike[str], of: str = "") -> Iterator[Path]:
    """Yield an empty temporary file beside `path`, which replaces `path` if the block succeeds and else disappears.

    Args:
        of: a part of its name, so that a later run can clean up after a kill.

    Raises:
        OutputError: the folder is missing or not writable, `path` is a link or something else that is not a file, or
            writing failed.
    """
    path = Path(path)
    # Not from tempfile: only their owner may read its files, also after a rename.
    temporary = path.parent / f".softprune-{of}{uuid.uuid4().hex}{path.suffix}"
    require_replaceable(path)
    try:
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            require_replaceable(path)  # hours may have passed
            temporary.replace(path)
            to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        no_folder = isinstance(error, FileNotFoundError) and not path.parent.exists()
        why = f"there is no folder {path.parent}" if no_folder else because(error)
        raise OutputError(f"cannot write {path}: {why}") from error


def require_replaceable(path: Path) -> None:
    """Refuse to replace a link, a folder, a device or a pipe. Raises OutputError."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # it does not exist, or writing will say what is wrong
        return
    if stat.S_ISLNK(mode):
        raise OutputError(f"{path} is a link to {os.readlink(path)}: name what it points to; links are never replaced")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'not a plain file'}; name a file to write")


def remove(path: Path) -> bool:
    """Remove a file; return whether the path is free now. A link, a folder or anything else is left alone."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def archive(path: Path | int) -> Iterator[BinaryIO]:
    """A file for torch to write one of its archives to; OSError at the end where a write failed.

    Where a write fails, torch's writer fails once more when it is destroyed, and then ends the whole process.
    """
    with _Patient(path) as file:
        yield file
    if file.failed is not None:
        raise file.failed


class _Patient(io.BufferedWriter):
    """Accepts everything, and remembers that a write failed."""

    def __init__(self, path: Path | int) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failed is None and not self.closed:
            try:
                return super().write(data)
            except OSError as error:
                self.failed = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.failed = self.failed or error


def to_disk(folder: Path) -> None:
    """Flush the renames in `folder` to the disk, so that they survive a power cut."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
