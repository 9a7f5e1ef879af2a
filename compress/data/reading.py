"""Opens regular files from untrusted sources, and turns the errors of their readers into DataError."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from compress.errors import CompressError, DataError
from compress.files.bounded import kind
from compress.files.foreign import reason
from compress.wording import because, missing


@contextmanager
def boundary(path: str | Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads `path` into a DataError with file and reason.

    Libraries raise anything for a damaged file: zipfile alone has BadZipFile, NotImplementedError, RuntimeError,
    zlib.error, EOFError, OSError and struct.error.
    """
    try:
        yield
    except CompressError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not os.path.exists(path):
            raise DataError(missing(path)) from error
        if isinstance(error, NotADirectoryError):
            raise DataError(f"{path} is a file, not a {what}.") from error
        if isinstance(error, PermissionError):
            raise DataError(f"{path} cannot be read: {because(error)}.") from error
        raise DataError(f"{path} is not a readable {what} ({reason(error)}).") from error


@contextmanager
def opened(path: str | Path, what: str, *, links: bool = False) -> Iterator[BinaryIO]:
    """The regular file at `path`, open for reading; `boundary` turns whatever the block raises into a DataError.

    Args:
        links: whether `path` itself may be a link. Where it may not, one that appears after the check is not followed.

    Raises:
        DataError: it is absent, not a regular file, or cannot be read. A FIFO is not waited for.
    """
    with boundary(path, what):
        require_regular(path, os.stat(str(path), follow_symlinks=links).st_mode)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if not links:
            flags |= getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(str(path), flags), "rb") as file:
            require_regular(path, os.fstat(file.fileno()).st_mode)
            yield file


def require_regular(path: str | Path, mode: int) -> None:
    """Raise DataError unless `mode`, of `os.stat`, is that of a regular file."""
    if not stat.S_ISREG(mode):
        way_out = "name a file in it" if stat.S_ISDIR(mode) else "put a copy of the file there"
        raise DataError(f"{path} is {kind(mode)}, not a file; {way_out}.")
