"""Files that travel together to the nodes of a cluster, and are there once, in a folder named by their content."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compress.errors import InputError

PART = 64 * 2**20
"""Bytes that are in memory at once while files are read or written."""


@dataclass(frozen=True)
class Entry:
    """A file: its name in the bundle, with "/", its absolute path where the sweep runs, its size and sha256."""

    name: str
    source: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """Files that are carried together."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, files: Mapping[str, Path]) -> "Bundle":
        """The files at these paths, by name. Raises InputError if one cannot be read."""
        return cls(tuple(_entry(name, path) for name, path in sorted(files.items())))

    @cached_property
    def digest(self) -> str:
        """The sha256 of the names and contents; where the files come from does not matter."""
        lines = [(entry.name, entry.size, entry.sha256) for entry in self.entries]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

    def parts(self) -> Iterator[bytes]:
        """The contents, one file after the other, in parts of at most PART bytes. Raises InputError."""
        part = bytearray()
        for entry in self.entries:
            left = entry.size
            try:
                with open(entry.source, "rb") as file:
                    while left and (read := file.read(min(left, PART - len(part)))):
                        part += read
                        left -= len(read)
                        if len(part) == PART:
                            yield bytes(part)
                            part.clear()
            except OSError as error:
                raise _changed(entry) from error
            if left:
                raise _changed(entry)
        if part:
            yield bytes(part)

    def is_in_place(self) -> bool:
        """Whether this machine sees all files under the paths of the sweep's machine, with the same content."""
        return all(_holds(Path(entry.source), entry) for entry in self.entries)

    def is_in(self, folder: Path) -> bool:
        """Whether all files are in `folder` by name, with their content."""
        return all(_holds(folder / entry.name, entry) for entry in self.entries)

    def unpack(self, parts: Iterable[bytes], folder: Path) -> None:
        """Write the files to `folder`, each whole or not at all; damaged ones in their place are replaced.

        Nothing is flushed to the disk: whoever uses the folder compares the content.

        Raises:
            InputError: the parts have other contents, since a file has changed after the sweep was started.
        """
        stream = _Stream(parts)
        for entry in self.entries:
            path = folder / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.parent / f".softprune-{uuid.uuid4().hex}"
            try:
                if stream.write(draft, entry.size) != entry.sha256:
                    raise _changed(entry)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)


class _Stream:
    """Parts as one stream of bytes."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts, self._rest = iter(parts), memoryview(b"")

    def write(self, path: Path, size: int) -> str:
        """Write the next bytes to a file, fewer at the end of the stream; returns their sha256."""
        sha256 = hashlib.sha256()
        with path.open("xb") as file:
            while size:
                if not self._rest:
                    self._rest = memoryview(next(self._parts, b""))
                    if not self._rest:
                        break
                taken, self._rest = self._rest[:size], self._rest[size:]
                file.write(taken)
                sha256.update(taken)
                size -= len(taken)
        return sha256.hexdigest()


def _entry(name: str, path: Path) -> Entry:
    path = Path(os.path.abspath(path))
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return Entry(name, str(path), size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise InputError(f"{path} cannot be read, to be copied to the cluster's nodes: {error.strerror}") from error


def _holds(path: Path, entry: Entry) -> bool:
    try:
        with path.open("rb") as file:
            same = os.fstat(file.fileno()).st_size == entry.size
            return same and hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    except OSError:
        return False


def _changed(entry: Entry) -> InputError:
    return InputError(f"{entry.source} has changed since the sweep was started: start it again; what is done is kept")
