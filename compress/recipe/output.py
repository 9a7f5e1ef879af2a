"""The folder that a run leaves: it appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.errors import OutputError


def require_writable(out: Path, *, force: bool) -> None:
    """Refuse an output folder before any time is spent on its content.

    Raises:
        OutputError: it is a file, is not empty (unless `force`), or cannot be made there.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; name a folder to write to")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise OutputError(f"{out} is not empty; name another folder, or replace its content with --force")
    _try_to_write(out)


def require_file(out: Path, *, force: bool) -> None:
    """Refuse an output file before any time is spent on its content.

    Raises:
        OutputError: it exists (unless `force`), is a folder, or cannot be made there.
    """
    if out.is_dir():
        raise OutputError(f"{out} is a folder; name a file to write")
    if out.exists() and not force:
        raise OutputError(f"{out} exists; name another file, or replace it with --force")
    _try_to_write(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)


def _try_to_write(out: Path) -> None:
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    # access() alone lies for root and on read-only mounts: try.
    try:
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".softprune-"):
            pass
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror} ({nearest}); name another folder") from None


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into, which takes its place once all has gone well; else it vanishes.

    Raises:
        OutputError: the folder cannot be made or put in place.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        draft.chmod(0o777 & ~_umask())
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}; name another folder") from None
    try:
        yield draft
        if out.exists():
            former = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.")) / out.name
            out.rename(former)
            draft.rename(out)
            shutil.rmtree(former.parent)
        else:
            draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _umask() -> int:
    # mkdtemp makes private folders; the result should be as readable as any other folder of the user.
    current = os.umask(0)
    os.umask(current)
    return current
