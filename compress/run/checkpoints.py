"""The folder of a run in progress, `OUT.partial`: its last two checkpoints, and the lock that keeps others out.

Each file in it has the run's identity, recorded in the folder's mark, in its name. Files without it are never removed
or replaced.

A checkpoint is a pair of files. `ID-7.pt` has the state: tensors and plain values that torch.load reads with
`weights_only=True`, so that nothing in it is ever executed. `ID-7.json`, written after it, has its origin and checksum;
a checkpoint without it does not count. A full disk, a power cut or a kill at any moment therefore leaves the earlier
checkpoints unchanged.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from compress.errors import InputError, OutputError
from compress.files.atomic import archive, atomic, remove
from compress.files.bounded import read_json, strange
from compress.files.foreign import reason
from compress.files.marked import MARK, Mark, dissolve, make, mark_of, sha256
from compress.run.output import discard
from compress.wording import because

KEPT = 2

MAX_NOTE = 2**20
"""The largest N.json in bytes; the recipe in it has at most 64 KiB."""

State = dict[str, Any]
Fingerprint = Mapping[str, Any]
"""Everything that determines the result of a run, as JSON."""


@contextmanager
def alone(
    folder: Path, out: Path, tell: Callable[[str], None] = lambda line: None, drafts: Collection[str] = ()
) -> Iterator[None]:
    """Create `folder` and lock it for this process; at the end remove it, unless it contains checkpoints.

    The lock belongs to the operating system and ends with its process, however that ends.

    Args:
        tell: receives a message if foreign files prevent the removal of the folder.
        drafts: the names of files that a killed run may have left half-written.

    Raises:
        OutputError: another process holds the lock, the folder does not belong to a run that writes `out`, or it
            cannot be created.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    mark = _entered(folder, out)
    lock = _locked(folder, mark, out)
    try:
        with atomic(_process(folder, mark), mark.id) as draft:
            draft.write_text(str(os.getpid()), encoding="utf-8", newline="\n")
        _clean(folder, mark, drafts)
        yield
    finally:
        with suppress(OSError):
            if not _numbers(folder, mark.id) and (rest := dissolve(folder, mark)):
                tell(f"{folder} was not removed: it contains {', '.join(rest[:3])}, which softprune did not write")
        lock.release()
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _entered(folder: Path, out: Path) -> Mark:
    """The mark of the folder, which is created if it does not exist."""
    name = out.resolve().name
    if not os.path.lexists(folder):
        with _told(folder):
            try:
                make(folder, Mark("run", name))
            except OSError:
                if not os.path.lexists(folder):  # otherwise another run was faster, and holds the lock
                    raise
    mark = mark_of(folder, "run")
    if mark is None:
        raise OutputError(
            f"{folder} is in the way: softprune works there while it writes {out}, and did not create it (it has no "
            f"mark of a run, {MARK}); move it away, or name another output"
        )
    if mark.of != name:
        raise OutputError(f"{folder} belongs to a run that writes {mark.of}, not {name}: move it away")
    return mark


def _locked(folder: Path, mark: Mark, out: Path) -> FileLock:
    lock = FileLock(folder / f"{mark.id}.lock", timeout=0)
    try:
        with _told(folder):
            lock.acquire()
    except Timeout:
        holder = ""
        with suppress(OSError):
            holder = f" (process {_process(folder, mark).read_text(encoding='utf-8')})"
        raise OutputError(
            f"{out} is being written by another run{holder}: wait for it, or name another folder"
        ) from None
    return lock


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:  # an OSError too
        raise
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {because(error)}; name another folder") from None


def _process(folder: Path, mark: Mark) -> Path:
    return folder / f"{mark.id}.process"


@dataclass(frozen=True)
class Checkpoint:
    where: str
    state: State


class Checkpoints:
    """The checkpoints in a folder locked by this process (`alone`).

    tell: prints messages for the user. They are not warnings of the run, since results do not depend on them.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        self.fingerprint: Fingerprint = {}

    @cached_property
    def run(self) -> str:
        """The identity in all names. It is read late: if several processes train, the first one creates the folder.

        Raises OutputError if the folder has no mark.
        """
        mark = mark_of(self.folder, "run")
        if mark is None:
            raise OutputError(f"{self.folder} has lost its mark ({MARK}): move it away, and start again")
        return mark.id

    @property
    def where(self) -> str | None:
        """Where the run was at the latest checkpoint; None without a checkpoint."""
        for number in sorted(self._numbers(), reverse=True):
            with suppress(OSError, ValueError):
                return self._note(number).where
        return None

    def write(self, state: State, where: str) -> None:
        """Keep `state` as the latest checkpoint. If it cannot be written, only warn: the run itself can continue."""
        number = max(self._numbers(), default=0) + 1
        content, note = self._path(number, ".pt"), self._path(number, ".json")
        try:
            with atomic(content, self.run) as temporary:
                with archive(temporary) as file:
                    torch.save(state, file)
                digest = sha256(temporary)
            with atomic(note, self.run) as temporary:
                found = {"where": where, "sha256": digest, "fingerprint": self.fingerprint}
                temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8", newline="\n")
        except OutputError as error:
            remove(content)
            self.tell(f"warning: no checkpoint at {where}: {error}; the run continues with the earlier ones")
            return
        for old in sorted(self._numbers())[:-KEPT]:
            self._remove(old)

    def latest(self) -> Checkpoint | None:
        """The latest undamaged checkpoint, or None.

        Raises:
            InputError: it belongs to another run, by its `fingerprint`.
        """
        for number in sorted(self._numbers(), reverse=True):
            try:
                note = self._note(number)
                content = self._path(number, ".pt")
                if kind := strange(content):
                    raise ValueError(f"{content.name} is {kind}")
                if sha256(content) != note.sha256:
                    raise ValueError("its checksum differs")
                state = torch.load(content, map_location="cpu", weights_only=True)
            except Exception as error:  # on damaged input, torch.load may raise anything
                self.tell(
                    f"warning: checkpoint {number} in {self.folder} is damaged ({reason(error)}): using the one before"
                )
                continue
            if different := list(_differences(note.fingerprint, json.loads(json.dumps(self.fingerprint)))):
                raise InputError(
                    f"{self.folder} belongs to another run: {'; '.join(different)}. Resume with the original settings, "
                    "or start over: --force without --resume"
                )
            for damaged in (later for later in self._numbers() if later > number):
                self._remove(damaged)
            return Checkpoint(note.where, state)
        return None

    def clear(self) -> None:
        """Remove all checkpoints: the run is complete, or starts over."""
        for number in self._numbers():
            self._remove(number)
        remove(self.folder / f"{self.run}.placed")

    def _remove(self, number: int) -> None:
        for suffix in (".json", ".pt"):
            remove(self._path(number, suffix))

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{self.run}-{number}{suffix}"

    def _numbers(self) -> set[int]:
        return _numbers(self.folder, self.run)

    def _note(self, number: int) -> "_Note":
        """The note of a checkpoint. Raises OSError or ValueError if it is damaged."""
        found = read_json(self._path(number, ".json"), MAX_NOTE)
        match found:
            case {"where": str(where), "sha256": str(digest), "fingerprint": dict(fingerprint)}:
                return _Note(where, digest, fingerprint)
        raise ValueError(f"{number}.json is not the note of a checkpoint")


@dataclass(frozen=True)
class _Note:
    where: str
    sha256: str
    fingerprint: Fingerprint


def _numbers(folder: Path, run: str) -> set[int]:
    """The numbers of all checkpoint files, complete or not."""
    names = os.listdir(folder) if folder.is_dir() else []
    return {int(found[1]) for name in names if (found := re.fullmatch(rf"{run}-([0-9]+)\.(pt|json)", name))}


def _clean(folder: Path, mark: Mark, drafts: Collection[str]) -> None:
    """Remove what a killed process has left half-written."""
    discard(folder / f"{mark.id}.draft", drafts)
    for path in list(folder.iterdir()):
        if path.name.startswith(f".softprune-{mark.id}"):
            remove(path)


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
