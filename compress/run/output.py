"""The output of a command: a folder or a file that appears whole or not at all, and never replaces foreign files."""

import dataclasses
import hashlib
import os
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compress.errors import OutputError
from compress.files.atomic import TEMPORARY, atomic, remove, require_replaceable, to_disk
from compress.files.marked import (
    MARK,
    PARTIAL,
    Files,
    Mark,
    first,
    foreign,
    is_folder,
    is_leftover,
    is_own,
    make,
    mark_of,
    require_cells,
    require_place,
    sha256,
)
from compress.wording import because

SUFFIXES = (".pt", ".pth", ".safetensors")


def folder_of(out: Path) -> Path:
    """`OUT.partial`, or OUT/.partial if OUT is a folder: it may be a mount, which does not allow files beside it."""
    beside = out.parent / f"{out.name}{PARTIAL}"
    return out / PARTIAL if out.is_dir() and not os.path.lexists(beside) else beside


def placing(within: Path | None) -> None:
    """Record in the folder of a run in progress, if it has one, that its output is being put in place."""
    if within is not None and (mark := mark_of(within, "run")):
        with _told_as_output_error(within):
            require_replaceable(_placed(within, mark))
            _placed(within, mark).touch()
            to_disk(within)


def placed(out: Path) -> bool:
    """Whether a run ended while or after it put `out` in place, but before it could record its completion."""
    folder = folder_of(out)
    mark = mark_of(folder, "run")
    return mark is not None and _placed(folder, mark).exists()


def _placed(folder: Path, mark: Mark) -> Path:
    return folder / f"{mark.id}.placed"


# --- checks before any time is spent ---


def require_writable(out: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output folder that is not empty; with `force`, one that contains anything that softprune did not write.

    Raises:
        OutputError: such a folder, a file or a link, a folder with one of the run's `inputs`, or one that cannot be
            created.
    """
    require_place(out)
    if os.path.lexists(out) and not is_folder(out):
        raise OutputError(f"{out} is a file; name a folder to write to")
    if is_folder(out):
        if strangers := first(foreign(out)):
            raise OutputError(
                f"{out} is not empty: softprune did not write {strangers}, or it was changed since; name another "
                "folder (--force replaces only what softprune wrote)"
            )
        if not force and any(entry.name != MARK and not is_leftover(entry) for entry in out.iterdir()):
            raise OutputError(f"{out} is not empty; name another folder, or replace its content with --force")
    for path in inputs:
        if path.exists() and out.resolve() in path.resolve().parents:
            raise OutputError(f"{path} lies in {out}, whose content is to be replaced; name another folder")
    _try_to_write(out)


def require_names(out: Path, names: Collection[str], of: str, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output folder in which one of the `names` to be written is taken; other files in it are left alone.

    Args:
        of: the command. Files written by the same command are replaced.

    Raises:
        OutputError: a name is taken, the folder belongs to another command, or it cannot be created.
    """
    require_place(out)
    if os.path.lexists(out) and not is_folder(out):
        raise OutputError(f"{out} is a file; name a folder to write to")
    mark = mark_of(out) or Mark("results", of)
    if mark.softprune != "results":
        raise OutputError(f"{out} is a folder of softprune's {mark.softprune}; name another folder with -o")
    if mark.of != of:
        raise OutputError(f"{out} has the results of `compress {mark.of}`; name another folder with -o")
    for name in sorted(names):
        path = out / name
        if os.path.lexists(path) and not is_own(path, mark.files.get(name, [])):
            raise OutputError(
                f"{path} exists, and `compress {of}` did not write it, or it was changed since; "
                "name another folder with -o"
            )
        require_other(path, inputs)
    _try_to_write(out)


def require_cache(folder: Path, out: Path) -> None:
    """Refuse a cache folder that softprune did not create, or that is the output folder. Raises OutputError."""
    require_cells(folder)
    if folder.resolve() == out.resolve():
        raise OutputError(f"{folder} is both --cache and -o: name two folders")
    _try_to_write(folder)


def require_file(out: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output file of weights before any time is spent on its content.

    Raises:
        OutputError: it exists (unless `force`), is a link, a folder or one of the run's `inputs`, has another suffix,
            or cannot be created.
    """
    require_place(out)
    if not is_folder(out) and out.suffix not in SUFFIXES:
        raise OutputError(f"{out} ends in {out.suffix!r}: weights are written as {', '.join(SUFFIXES)}")
    require_new(out, force=force, inputs=inputs)


def require_new(path: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output file that exists, unless `force`; in any case one of the `inputs`, by whatever name.

    Raises OutputError.
    """
    require_place(path)
    require_other(path, inputs)
    if path.name == MARK:
        raise OutputError(f"{path} is the mark of its folder; name another file")
    if is_folder(path):
        raise OutputError(f"{path} is a folder; name a file to write")
    if os.path.lexists(path) and not force:
        raise OutputError(f"{path} exists; name another file, or replace it with --force")
    _try_to_write(path.parent)


def require_other(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse to overwrite an input, by whatever name, including links and hard links. Raises OutputError."""
    for given in inputs:
        with suppress(OSError):
            if os.path.samefile(path, given):
                same = "" if str(path) == str(given) else f"the same file as {given}, "
                raise OutputError(f"{path} is {same}an input of this command; name another file to write")


def free(path: Path) -> Path:
    """The first of NAME, NAME-2, NAME-3, ... that does not exist yet; a file keeps its suffix."""
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _try_to_write(out: Path) -> None:
    nearest = next(folder for folder in (out, *out.absolute().parents) if os.path.exists(folder))
    # access() alone lies for root and on read-only mounts: try, with a file that has no name.
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        where = "" if nearest == out else f" in {nearest}"
        raise OutputError(f"{out} cannot be written: {because(error)}{where}; name another folder") from None


# --- the output's place at the beginning and at the end of a run ---

Seen = tuple[int, ...] | None


def seen(path: Path) -> Seen:
    """What distinguishes a file or folder from another one in its place; None if the path is free."""
    with suppress(OSError):
        found = os.lstat(path)
        content = () if is_folder(path) else (found.st_size, found.st_mtime_ns)
        return (found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode), *content)
    return None


def require_seen(path: Path, before: Seen) -> None:
    """Refuse to replace a file or folder that appeared meanwhile. Raises OutputError."""
    if seen(path) != before:
        raise OutputError(f"{path} has changed since the run began: move it away, and resume")


# --- writing ---


@contextmanager
def whole_folder(
    out: Path, names: Collection[str], of: str, *, within: Path | None = None, before: Seen = ()
) -> Iterator[Path]:
    """A draft folder to write into; its files are moved to `out` if the block succeeds, and removed otherwise.

    Files that softprune wrote to `out` before are replaced or removed, one by one; other files are left alone.

    Args:
        names: the files that may be written, such as "checkpoint/masked.safetensors"; only these are put in place.
        of: the command, for the mark.
        within: the folder of a run in progress, for drafts: a killed run leaves them there.
        before: the result of `seen` for `out` when the run began.

    Raises:
        OutputError: the folder cannot be created, written to or put in place.
    """
    before = seen(out) if before == () else before
    # An existing folder is not replaced: it may be a mount, which cannot be renamed, or the user's current folder.
    home = out if is_folder(out) else out.parent
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    mark, draft = Mark("results", of), None
    try:
        with _told_as_output_error(out):
            home.mkdir(parents=True, exist_ok=True)
            draft = draft_in(within, home, mark)
            yield draft
            require_seen(out, before)
            mark = dataclasses.replace(mark, files={name: [sha256(draft / name)] for name in _written(draft, names)})
            mark.write(draft)
            _all_to_disk(draft, mark.files)
            require_seen(out, before)  # both take their time
            placing(within)
            if home == out:
                _replace_files(out, draft, mark)
            else:
                draft.rename(out)
            to_disk(home)
        made.clear()
    finally:
        if draft is not None:
            discard(draft, names)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def draft_in(within: Path | None, home: Path, mark: Mark) -> Path:
    """A new, marked folder for drafts: in the folder of the run in progress, or in `home`."""
    run = None if within is None else mark_of(within, "run")
    draft = home / f".softprune-{mark.id}" if within is None or run is None else within / f"{run.id}.draft"
    draft.mkdir()
    mark.write(draft)
    return draft


def discard(draft: Path, names: Collection[str]) -> None:
    """Remove a folder of drafts, file by file: those with one of the `names`, or that of a draft. Others are kept."""
    if not is_folder(draft):
        return
    for name in (*sorted(names), MARK):
        if is_folder((draft / name).parent):
            remove(draft / name)
    for folder in sorted({(draft / name).parent for name in names} | {draft}, reverse=True):
        if is_folder(folder):
            for path in list(folder.iterdir()):
                if TEMPORARY.fullmatch(path.name):
                    remove(path)
            with suppress(OSError):
                folder.rmdir()


def _written(draft: Path, names: Collection[str]) -> list[str]:
    return [name for name in sorted(names) if (draft / name).is_file()]


def _replace_files(out: Path, draft: Path, mark: Mark) -> None:
    """Move the files of `draft` to `out` by renaming, so that every file is complete at any moment.

    Until all are in place, the mark lists both the new files and the old ones, so that a killed run leaves only known
    files.
    """
    found = mark_of(out, "results")
    old: Files = {} if found is None else found.files
    both = {name: [*old.get(name, []), *mark.files.get(name, [])] for name in {**old, **mark.files}}
    for name in mark.files:
        _require_free(out, name, both)
    dataclasses.replace(mark, files=both).write(out)
    for name in mark.files:
        (out / name).parent.mkdir(exist_ok=True)
        os.replace(draft / name, out / name)
    for name in sorted(old.keys() - mark.files.keys(), reverse=True):
        if is_own(out / name, old[name]) and remove(out / name) and "/" in name:
            with suppress(OSError):
                (out / name).parent.rmdir()
    mark.write(out)


def _require_free(out: Path, name: str, known: Files) -> None:
    path = out / name
    if os.path.lexists(path.parent) and not is_folder(path.parent):
        path = path.parent
    elif not os.path.lexists(path) or is_own(path, known[name]):
        return
    raise OutputError(f"{path} appeared during the run: move it away, and resume")


@contextmanager
def added(out: Path, name: str) -> Iterator[Path]:
    """Add a file to a folder of results, whose mark lists it before it appears.

    In a folder without a mark it is just a file.
    """
    with _told_as_output_error(out):
        (out / name).parent.mkdir(exist_ok=True)
    with atomic(out / name) as temporary:
        yield temporary
        if mark := mark_of(out, "results"):
            known = [*mark.files.get(name, []), sha256(temporary)][-2:]
            dataclasses.replace(mark, files={**mark.files, name: known}).write(out)


def begin(out: Path, of: str) -> None:
    """Create a folder of results, or mark an existing one, for files that are `added` to it.

    Raises OutputError.
    """
    with _told_as_output_error(out):
        if not os.path.lexists(out):
            make(out, Mark("results", of))
        elif not mark_of(out, "results"):
            Mark("results", of).write(out)


def is_written(path: Path, text: str) -> bool:
    """Whether the mark of its folder lists the file unchanged, or it already has that text."""
    mark = mark_of(path.parent, "results")
    known = [] if mark is None else mark.files.get(path.name, [])
    return is_own(path, [*known, hashlib.sha256(text.encode()).hexdigest()])


def _all_to_disk(folder: Path, names: Iterable[str]) -> None:
    """Flush files before they are put in place: otherwise a power cut right after would leave empty ones."""
    for name in names:
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())
    for path in {(folder / name).parent for name in names} | {folder}:
        to_disk(path)


@contextmanager
def _told_as_output_error(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {because(error)}; name another folder") from None
