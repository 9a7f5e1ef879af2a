"""The folder of a run in progress, `OUT.partial`: its last two checkpoints, and the lock that keeps others out.

A checkpoint is a pair of files. `7.pt` has the state, tensors and plain values that torch.load reads with
`weights_only=True`, so that nothing in it is ever executed. `7.json`, written after it, says what it is of and has its
checksum: without it there is no checkpoint. An empty file system, a power cut or a kill at any moment thus leaves the
ones before as they are.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from compress.errors import InputError, OutputError
from compress.files.atomic import archive, atomic
from compress.files.bounded import read_json, strange
from compress.run.output import PLACED

KEPT = 2

MAX_NOTE = 2**20
"""Bytes of N.json; the recipe in it has 64 KiB at most."""

State = dict[str, Any]
Fingerprint = Mapping[str, Any]
"""Everything that determines what a run comes to, as JSON."""


@contextmanager
def alone(folder: Path, out: Path) -> Iterator[None]:
    """Make `folder` and hold it for this process; at the end it goes, unless there are checkpoints in it.

    The lock is the operating system's and ends with its process, however that ends.

    Raises:
        OutputError: another process holds it, or it cannot be made.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    lock = _locked(folder, out)
    try:
        (folder / "process").write_text(str(os.getpid()), encoding="utf-8", newline="\n")
        _clean(folder)
        yield
    finally:
        with suppress(OSError):
            if not _numbers(folder):
                (folder / "process").unlink(missing_ok=True)
                (folder / "lock").unlink(missing_ok=True)
        lock.release()
        for parent in (folder, *made):
            with suppress(OSError):
                parent.rmdir()


def _locked(folder: Path, out: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        holder = ""
        with suppress(OSError):
            holder = f" (process {(folder / 'process').read_text(encoding='utf-8')})"
        raise OutputError(
            f"{out} is being written by another run{holder}: wait for it, or name another folder"
        ) from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}; name another folder") from None
    return lock


@dataclass(frozen=True)
class Checkpoint:
    where: str
    state: State


class Checkpoints:
    """Those in a folder that this process holds (`alone`).

    tell: what people should know is said with it. It is no warning of the run: results do not hang on it.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        self._next = max(_numbers(folder), default=0) + 1
        self.fingerprint: Fingerprint = {}

    @property
    def where(self) -> str | None:
        """What the latest one is of; None where there is none."""
        for number in sorted(_numbers(self.folder), reverse=True):
            with suppress(OSError, ValueError):
                return self._note(number).where
        return None

    def write(self, state: State, where: str) -> None:
        """Keep `state` as the latest. Where it cannot be written, say so: the run itself may well go on."""
        number, self._next = self._next, self._next + 1
        content, note = self.folder / f"{number}.pt", self.folder / f"{number}.json"
        try:
            with atomic(content) as temporary:
                with archive(temporary) as file:
                    torch.save(state, file)
                digest = _sha256(temporary)
            with atomic(note) as temporary:
                found = {"where": where, "sha256": digest, "fingerprint": self.fingerprint}
                temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8", newline="\n")
        except OutputError as error:
            with suppress(OSError):
                content.unlink(missing_ok=True)
            self.tell(f"warning: no checkpoint at {where}: {error}; the run goes on, with those before")
            return
        for old in sorted(_numbers(self.folder))[:-KEPT]:
            self._remove(old)

    def latest(self) -> Checkpoint | None:
        """The latest one that is whole, and None if none is.

        Raises:
            InputError: it is of another run than `fingerprint` says.
        """
        for number in sorted(_numbers(self.folder), reverse=True):
            try:
                note = self._note(number)
                content = self.folder / f"{number}.pt"
                if kind := strange(content):
                    raise ValueError(f"{content.name} is {kind}")
                if _sha256(content) != note.sha256:
                    raise ValueError("its checksum is another")
                state = torch.load(content, map_location="cpu", weights_only=True)
            except Exception as error:  # torch.load raises whatever its damaged input leads to
                self.tell(f"warning: checkpoint {number} in {self.folder} is damaged ({error}): taking the one before")
                continue
            if different := list(_differences(note.fingerprint, json.loads(json.dumps(self.fingerprint)))):
                raise InputError(
                    f"{self.folder} is of another run: {'; '.join(different)}. Go on with what it was begun with, or "
                    "begin anew: --force without --resume"
                )
            for damaged in (later for later in _numbers(self.folder) if later > number):
                self._remove(damaged)
            return Checkpoint(note.where, state)
        return None

    def clear(self) -> None:
        """The run is complete, or begins anew."""
        for number in _numbers(self.folder):
            self._remove(number)
        with suppress(OSError):
            (self.folder / PLACED).unlink(missing_ok=True)

    def _remove(self, number: int) -> None:
        for suffix in (".json", ".pt"):
            with suppress(OSError):
                (self.folder / f"{number}{suffix}").unlink(missing_ok=True)

    def _note(self, number: int) -> "_Note":
        """Raises OSError or ValueError where it is damaged."""
        found = read_json(self.folder / f"{number}.json", MAX_NOTE)
        match found:
            case {"where": str(where), "sha256": str(digest), "fingerprint": dict(fingerprint)}:
                return _Note(where, digest, fingerprint)
        raise ValueError(f"{number}.json is not the note of a checkpoint")


@dataclass(frozen=True)
class _Note:
    where: str
    sha256: str
    fingerprint: Fingerprint


def _numbers(folder: Path) -> set[int]:
    """Of all files of checkpoints, whole or not."""
    if not folder.is_dir():
        return set()
    return {int(path.stem) for path in folder.iterdir() if path.suffix in (".pt", ".json") and path.stem.isdecimal()}


def _clean(folder: Path) -> None:
    """Away with what a killed process has left half-written."""
    for path in folder.iterdir():
        if path.name not in ("lock", "process", PLACED) and not path.stem.isdecimal():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _differences(then: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in then | now:
            yield from _differences(then.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for place, (old, new) in enumerate(zip(then, now, strict=True)):
            yield from _differences(old, new, f"{key}.{place}")
    elif then != now:
        yield f"{key} was {_short(then)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
