"""The folder that a run leaves: it appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from compress.errors import OutputError
from compress.files.atomic import to_disk

PARTIAL = ".partial"
"""What the folder of a run in progress is called, after its output."""

PLACED = "placed"
"""The file in it that says that the output is being put in place: what is found there from now on is the run's own."""

SUFFIXES = (".pt", ".pth", ".safetensors")


def folder_of(out: Path) -> Path:
    """`OUT.partial`, or OUT/.partial where OUT is a folder: it may be a mount, beside which nothing can be made."""
    beside = out.parent / f"{out.name}{PARTIAL}"
    return out / PARTIAL if out.is_dir() and not beside.exists() else beside


def placing(within: Path | None) -> None:
    """Say in the folder of a run in progress, if it has one, that its output is put in place from now on."""
    if within is not None:
        with _told_as_output_error(within):
            (within / PLACED).touch()
            to_disk(within)


def placed(out: Path) -> bool:
    """Whether a run was ended while or after it put `out` in place, and before it could say that it was complete."""
    return (folder_of(out) / PLACED).exists()


def require_writable(out: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output folder before any time is spent on its content.

    Raises:
        OutputError: it is a file, is not empty (unless `force`), holds one of the run's `inputs`, which `force` would
            take away, or cannot be made there.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; name a folder to write to")
    if out.is_dir() and any(entry.name != PARTIAL for entry in out.iterdir()) and not force:
        raise OutputError(f"{out} is not empty; name another folder, or replace its content with --force")
    for path in inputs:
        if out.resolve() in path.resolve().parents:
            raise OutputError(f"{path} lies in {out}, whose content is to be replaced; name another folder")
    _try_to_write(out)


def require_file(out: Path, *, force: bool) -> None:
    """Refuse an output file of weights before any time is spent on its content.

    Raises:
        OutputError: it exists (unless `force`), is a folder, has a suffix of something else, or cannot be made there.
    """
    if out.is_dir():
        raise OutputError(f"{out} is a folder; name a file to write")
    if out.suffix not in SUFFIXES:
        raise OutputError(f"{out} ends in {out.suffix!r}: weights are written as {', '.join(SUFFIXES)}")
    if out.exists() and not force:
        raise OutputError(f"{out} exists; name another file, or replace it with --force")
    _try_to_write(out.parent)


def free(path: Path) -> Path:
    """The first of NAME, NAME-2, NAME-3, ... that does not exist yet; of a file, its suffix stays the last."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _try_to_write(out: Path) -> None:
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    # access() alone lies for root and on read-only mounts: try.
    try:
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".softprune-"):
            pass
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror} ({nearest}); name another folder") from None


@contextmanager
def whole_folder(out: Path, within: Path | None = None) -> Iterator[Path]:
    """A folder to write into, whose content takes the place of that of `out` once all has gone well; else it vanishes.

    Args:
        within: a folder in or beside `out` for what is half-written, so that whoever is killed leaves it there.

    Raises:
        OutputError: the folder cannot be made, written to or put in place.
    """
    # A folder that is there stays itself: it may be a mount, which cannot be renamed, or where the user stands.
    home = out if out.is_dir() else out.parent
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    draft = None
    try:
        with _told_as_output_error(out):
            home.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=within or home, prefix=".softprune-"))
            yield draft
            _all_to_disk(draft)
            placing(within)
            if home == out:
                _replace_content(out, draft)
            else:
                draft.chmod(0o777 & ~_umask())
                draft.rename(out)
            to_disk(home)
        made.clear()
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _replace_content(out: Path, draft: Path) -> None:
    """Swap what is in `out` for what is in `draft`, a folder below it; by renaming: files are never half there."""
    former = Path(tempfile.mkdtemp(dir=draft.parent, prefix=".softprune-"))
    own = {draft.name, former.name, PARTIAL}  # paths differ: from Python 3.12 on, mkdtemp gives absolute ones
    for entry in list(out.iterdir()):
        if entry.name not in own:
            entry.rename(former / entry.name)
    for entry in list(draft.iterdir()):
        entry.rename(out / entry.name)
    shutil.rmtree(former)


def _all_to_disk(folder: Path) -> None:
    """Before it is put in place: a power cut right after would leave empty files else."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            to_disk(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())


@contextmanager
def _told_as_output_error(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}; name another folder") from None


def _umask() -> int:
    # mkdtemp makes private folders; the result should be as readable as any other folder of the user.
    current = os.umask(0)
    os.umask(current)
    return current
