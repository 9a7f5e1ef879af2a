"""Reads untrusted files: ordinary ones alone, up to a size, and JSON of plain values."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

MAX_DEPTH = 100
"""Levels of JSON: far more than our documents have, and far less than Python's recursion limit."""

MOST_TENSORS = 100_000
"""The most tensors of a file: each takes a kilobyte in Python, whatever it takes in the file."""

MOST_HEADER = 16 * 2**20
"""Bytes of the list of names and shapes, which take many times as much in Python: a hundred thousand tensors."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind(mode: int) -> str:
    """The kind of a file with this mode, of `os.stat`, in words."""
    return KINDS.get(stat.S_IFMT(mode), "not an ordinary file")


def strange(path: Path, *, links: bool = True) -> str | None:
    """The kind of a file that is not ordinary, such as "a pipe"; None for an ordinary or missing file.

    Args:
        links: a link counts as what it points to.

    Raises:
        OSError: `path` cannot be accessed.
    """
    try:
        mode = os.stat(path, follow_symlinks=links).st_mode
    except FileNotFoundError:
        return None
    return KINDS.get(stat.S_IFMT(mode))


def read_bytes(path: Path, most: int, *, links: bool = True) -> bytes:
    """The content of an ordinary file of at most `most` bytes.

    Raises:
        OSError: it is missing, or cannot be read.
        ValueError: it is something else, such as a pipe or a device, or larger; nothing is read from what may not end.
    """
    # Before it is opened, since opening alone affects a device or a pipe.
    if kind := strange(path, links=links):
        raise ValueError(f"it is {kind}, not an ordinary file")
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return content


def read_json(path: Path, most: int, *, links: bool = True) -> Any:
    """The value in a JSON file: no NaN, no infinity, at most `MAX_DEPTH` levels.

    Raises:
        OSError, ValueError: as `read_bytes`, or it is not such a document.
    """
    return parse_json(read_bytes(path, most, links=links).decode("utf-8"))


def parse_json(text: str) -> Any:
    """The value of a JSON document: no NaN, no infinity, at most `MAX_DEPTH` levels.

    Raises:
        ValueError: it is not such a document.
    """
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    _require_flat(found)
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _require_flat(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        below = (list(one.values()) if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [inner for inners in below for inner in inners]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
