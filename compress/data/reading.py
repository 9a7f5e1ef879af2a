"""What every reader of strangers' files begins with: a regular file, opened once, and one boundary for its errors."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from compress.errors import CompressError, DataError

LONGEST_REASON = 200
"""Characters of a library's own words in an error; some quote what they have read."""

KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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
        if isinstance(error, FileNotFoundError) and error.filename == str(path):
            raise DataError(f"{path} does not exist.") from error
        raise DataError(f"{path} is not a readable {what} ({reason(error)}).") from error


def reason(error: BaseException) -> str:
    """The library's words on one line, or the error's name where it has none."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    words = " ".join(said.split()) or type(error).__name__
    return words if len(words) <= LONGEST_REASON else f"{words[: LONGEST_REASON - 3]}..."


@contextmanager
def opened(path: str | Path, what: str, *, links: bool = False) -> Iterator[BinaryIO]:
    """The regular file at `path`, open for reading; whatever the block raises comes out as of `boundary`.

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
        raise DataError(f"{path} is {kind(mode)}; only regular files are read. Put a copy of the file there.")


def kind(mode: int) -> str:
    return KINDS.get(stat.S_IFMT(mode), "not a regular file")
