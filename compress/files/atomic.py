"""Files that appear whole or not at all."""

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from compress.errors import InputError, OutputError
from compress.options import shown


def require_path(what: str, path: object) -> None:
    """Raise InputError unless it is the name of a file."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InputError(f"{what}: found {shown(path)}; expected the path of a file")


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`, which replaces `path` if the block succeeds and else disappears.

    Raises:
        OutputError: the folder is missing or not writable, or writing failed.
    """
    path = Path(path)
    # Not from tempfile: its files are readable by their owner only, and would stay so.
    temporary = path.parent / f".{uuid.uuid4().hex}{path.suffix}"
    try:
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def archive(path: Path | int) -> Iterator[BinaryIO]:
    """A file for torch to write one of its archives to; OSError at the end where any of it could not be written.

    Where a write fails, torch's writer fails once more when it is thrown away, and then ends the whole process.
    """
    with _Patient(path) as file:
        yield file
    if file.failed is not None:
        raise file.failed


class _Patient(io.BufferedWriter):
    """Takes everything, and remembers what could not be written."""

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
    """What was renamed in `folder` is so after a power cut too."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
