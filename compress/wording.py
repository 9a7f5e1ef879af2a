"""Pieces of messages: numbers with their noun, lists, reasons, and suggestions for what is nearly right."""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

_MOST_NAMES = 10_000
"""The most entries of a folder that are compared with the name of a missing file."""


_REASONS = {
    errno.ENOENT: "it does not exist",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "a part of its path is a file, not a folder",  # from making the folders above it
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "the file is larger than the system allows",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "its links lead in a circle",
}


def count_of(number: float, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 step", "1,200 steps", "0.333 epochs"; `plural` is the noun with an s if absent."""
    shown = f"{number:,.0f}" if number == round(number) else f"{number:.3g}" if number < 100 else f"{number:,.1f}"
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], limit: int = 6) -> str:
    """Names for an error text; a file from elsewhere may have any number of them."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """The end of a message that `word` is unknown: the option with the most similar spelling, if there is one."""
    found = nearest(word, options)
    return f"; did you mean {found}?" if found else ""


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option with the most similar spelling, if there is one; upper and lower case do not count."""
    by_spelling = {option.casefold(): option for option in options}
    close = difflib.get_close_matches(word.casefold(), by_spelling, n=1)
    return by_spelling[close[0]] if close else None


def because(error: OSError | ValueError) -> str:
    """Why the system cannot read or write a path. Libraries in Rust, such as safetensors, give the number as text."""
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(found[1])
    return _REASONS.get(number or 0) or getattr(error, "strerror", None) or str(error)


def missing(path: str | Path, way_out: str = "") -> str:
    """The message that `path` does not exist: the folder that is missing, or the file that may be meant, or `way_out`.

    A file may be meant if it is spelled similarly and has the same suffix, or has the same name and another suffix.
    """
    wanted = Path(path)
    end = f"; {way_out}" if way_out else ""
    if wanted.is_symlink():
        return f"{path} is a link to {os.readlink(wanted)}, which does not exist{end}"
    above = next((folder for folder in reversed(wanted.parents) if not folder.is_dir()), None)
    if above is not None and above.exists():
        return f"{path} does not exist: {above} is a file, not a folder{end}"
    near = similar(above or wanted)
    if near is not None:
        meant = near / wanted.relative_to(above) if above else near
        return f"{path} does not exist; did you mean {meant if meant.exists() else near}?"
    return f"{path} does not exist" + (f": there is no folder {above}" if above else "") + end


def similar(path: Path) -> Path | None:
    """The entry of the same folder that `path` may mean."""
    try:
        with os.scandir(path.parent) as entries:
            found = [entry for entry in islice(entries, _MOST_NAMES) if not entry.name.startswith(".")]
    except OSError:  # a folder that may not be listed offers nothing
        return None
    names = sorted(entry.name for entry in found if not (path.suffix and entry.is_dir()))
    stems = {Path(name).stem: name for name in names if Path(name).suffix == path.suffix}
    # The suffix would make any two files of the same kind look similar.
    if (close := nearest(path.stem, stems)) is not None:
        return path.with_name(stems[close])
    return next((path.with_name(name) for name in names if Path(name).stem == path.stem), None)
