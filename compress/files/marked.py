"""Folders that this package made: the mark in them, and the files in them that are its own.

A mark is the file `.softprune`, a JSON document such as

    {"softprune": "results", "of": "apply", "id": "3f0c...", "files": {"slim.onnx": ["sha256 of its bytes"]}}

There are three kinds of folders. In that of a run in progress, "run", each file has the mark's `id` in its name, so
that no other file has such a name. The mark of "results" lists the files with their checksums: a file is own while
it has the bytes that were written. The files of a cache, "cells", have hashes as names.
"""

import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from compress.errors import OutputError
from compress.files.atomic import TEMPORARY, atomic, remove, to_disk
from compress.wording import because

MARK = ".softprune"
PARTIAL = ".partial"
"""The name of the folder of a run in progress, after its output or within it."""

LARGEST = 1 << 20
"""The most bytes of a mark, which lists some ten files."""

Kind = Literal["run", "results", "cells"]
Files = Mapping[str, list[str]]
"""The sha256 that each file may have: two of them while it is replaced."""


def identity() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Mark:
    """The mark of a folder.

    of: the name of the output of a run in progress, or the command that left results.
    """

    softprune: Kind
    of: str = ""
    id: str = field(default_factory=identity)
    files: Files = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Raises OutputError: the folder has a mark of another kind or program, or it cannot be written."""
        if os.path.lexists(folder / MARK) and mark_of(folder, self.softprune) is None:
            raise OutputError(f"{folder / MARK} is not a mark of softprune's {self.softprune}: name another folder")
        with atomic(folder / MARK) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8", newline="\n")


def mark_of(folder: Path, *kinds: Kind) -> Mark | None:
    """The mark in a folder; None where there is none, it is of another kind, or the folder or the mark is a link."""
    if not is_folder(folder):
        return None
    try:
        # Non-blocking, since a pipe in its place would make it wait.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(folder / MARK, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            found = json.loads(file.read(LARGEST))
        mark = Mark(**found)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return mark if mark.softprune in (kinds or get_args(Kind)) and _well_formed(mark) else None


def _well_formed(mark: Mark) -> bool:
    """Whether all names in a mark lead below its folder: marks are untrusted too."""
    if not (isinstance(mark.id, str) and len(mark.id) == 32 and set(mark.id) <= set("0123456789abcdef")):
        return False
    if not (isinstance(mark.of, str) and isinstance(mark.files, dict)):
        return False
    parts = [part for name in mark.files for part in name.split("/")]
    return not {"", ".", ".."} & set(parts) and all(isinstance(known, list) for known in mark.files.values())


def is_folder(path: Path) -> bool:
    """Whether it is a folder, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_own(path: Path, known: list[str]) -> bool:
    """Whether it is a file, not a link, with one of the checksums that are known."""
    try:
        return bool(known) and stat.S_ISREG(os.lstat(path).st_mode) and sha256(path) in known
    except OSError:
        return False


def foreign(folder: Path) -> Iterator[str]:
    """Foreign files in a folder of results, by name: this package did not write them, or they changed.

    The marked folder of a run in progress and empty files of a killed process do not count.
    """
    mark = mark_of(folder, "results")
    files = {} if mark is None else mark.files
    yield from _foreign(folder, "", files, {MARK} if mark else set())


def _foreign(folder: Path, within: str, files: Files, skipped: set[str]) -> Iterator[str]:
    folders = {name.rpartition("/")[0] for name in files}
    for entry in sorted(folder.iterdir()):
        name = f"{within}{entry.name}"
        if name in skipped or is_own(entry, files.get(name, [])) or is_leftover(entry):
            continue
        if name in folders and is_folder(entry):
            yield from _foreign(entry, f"{name}/", files, set())
        elif mark_of(entry, "results"):
            yield from (f"{name}/{inside}" for inside in foreign(entry))
        else:
            yield f"{name}/" if is_folder(entry) else name


def is_leftover(path: Path) -> bool:
    """Whether it is the folder of a run in progress, or a draft of a killed one; both are left alone."""
    if path.name == PARTIAL:
        return mark_of(path, "run") is not None
    draft = TEMPORARY.fullmatch(path.name) is not None and is_folder(path)
    return draft and (mark_of(path) is not None or not any(path.iterdir()))


def first(names: Iterator[str], most: int = 3) -> str:
    """The first of the names for an error text; empty without names."""
    found = list(islice(names, most + 1))
    return ", ".join(found[:most]) + (" and more" if len(found) > most else "")


def make(folder: Path, mark: Mark) -> None:
    """Make a folder together with its mark, and the folders above it.

    Raises:
        FileExistsError: the path exists already, even as a link that leads nowhere.
        OSError, OutputError: it cannot be made.
    """
    if not os.path.lexists(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".softprune-{mark.id}")
    draft.mkdir()
    try:
        mark.write(draft)
        if os.path.lexists(folder):
            raise FileExistsError(17, os.strerror(17))
        draft.rename(folder)
    except BaseException:
        with suppress(OSError):
            remove(draft / MARK)
            draft.rmdir()
        raise
    to_disk(folder.parent)


def dissolve(folder: Path, mark: Mark) -> list[str]:
    """Remove the folder of a run with all its own files; other files keep it, and their names are returned."""
    if mark_of(folder, "run") != mark:
        return []  # something else is there now
    others = [path for path in sorted(folder.iterdir()) if path.name != MARK]
    rest = [path.name for path in others if not (path.name.startswith(mark.id) and remove(path))]
    if not rest:
        remove(folder / MARK)
        try:
            folder.rmdir()  # not renamed before, which would also move files that appear there in this moment
        except OSError:
            rest = [path.name for path in sorted(folder.iterdir())]
            mark.write(folder)
    return rest


def require_place(path: Path) -> None:
    """Refuse to write to a link, or below one that leads nowhere, before any time is spent.

    Raises OutputError.
    """
    if path.is_symlink():
        raise OutputError(
            f"{path} is a link to {os.readlink(path)}: name what it points to; links are never replaced or followed"
        )
    for parent in path.parents:
        if os.path.lexists(parent) and not os.path.exists(parent):
            raise OutputError(f"{path} cannot be written: {parent} is a link that leads nowhere; name another folder")


def require_cells(folder: Path) -> None:
    """Refuse a cache folder that this package did not make and that is not empty.

    Raises OutputError.
    """
    require_place(folder)
    if not os.path.lexists(folder) or mark_of(folder, "cells"):
        return
    if not is_folder(folder):
        raise OutputError(f"{folder} is a file; name another folder with --cache")
    if held := first(entry.name for entry in sorted(folder.iterdir()) if not TEMPORARY.fullmatch(entry.name)):
        raise OutputError(
            f"{folder} is not a cache that softprune made: it holds {held}, and no mark ({MARK}); "
            "name another folder with --cache"
        )


def cells(folder: Path) -> None:
    """Make a cache folder if it does not exist; several sweeps may do so at the same time.

    Raises OutputError: see `require_cells`.
    """
    require_cells(folder)
    if mark_of(folder, "cells"):
        return
    try:
        if os.path.lexists(folder):
            Mark("cells").write(folder)
        else:
            make(folder, Mark("cells"))
    except OSError as error:
        if not mark_of(folder, "cells"):  # else another sweep was faster
            raise OutputError(f"{folder} cannot be written: {because(error)}; name another folder") from None
