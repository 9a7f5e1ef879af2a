"""What a worker of the cluster does: bring the call's files to its machine, once for all workers there, and call."""

import os
import pickle
import shutil
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from compress import __version__
from compress.errors import InputError, OutputError
from compress.files import marked
from compress.files.atomic import TEMPORARY
from compress.files.marked import MARK
from compress.sweep.cluster.bundles import Bundle
from compress.sweep.cluster.carried import Carried, moved
from compress.sweep.threads import one_thread

FOLDER = "COMPRESS_NODE_CACHE"
"""The environment variable with the folder for carried files on a node."""


@dataclass(frozen=True)
class Task:
    """A pickled call, the working folder in which it was made, and the version of softprune that made it."""

    call: bytes
    cwd: str
    version: str = __version__


@dataclass(frozen=True)
class Missing:
    """The digests of bundles that the machine lacks and was not given; nothing was called."""

    digests: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a call has returned or raised, pickled, and the files that it has written, by name."""

    pickled: bytes
    raised: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


Parts = Callable[[str], Iterable[bytes] | None]
"""The contents of the bundle with a digest; None if they were not sent along."""


def work(task: Task, carried: Carried, parts: Parts) -> Answer | Missing:
    """Make the call on this machine, on one thread."""
    try:
        if task.version != __version__:
            raise InputError(
                f"the node {socket.gethostname()} has softprune {__version__}, and the sweep {task.version}: install "
                "the same version everywhere"
            )
        found = [None if _is_in_place(bundle) else _copied(bundle, parts) for bundle in carried.bundles]
        if missing := tuple(one.digests[0] for one in found if isinstance(one, Missing)):
            return Missing(missing)
        return _called(task, carried, [folder for folder in found if not isinstance(folder, Missing)])
    except Exception as error:
        return Answer(_pickled(error), raised=True)


def _called(task: Task, carried: Carried, folders: list[Path | None]) -> Answer:
    """Call with the files in these folders, in the order of `carried.bundles`; None: where the sweep has them."""
    at = {place.text: place.moved_to(folder) for place, folder in zip(carried.places, folders, strict=False)}
    code = folders[-1] if carried.code is not None else None
    _find_modules(task.cwd, carried.roots if code is None else (str(code),))
    one_thread()
    call: Callable[[], object] = pickle.loads(task.call)
    if carried.written is None:
        return Answer(pickle.dumps(moved(call, at)()))
    folder = Path(_scratch().name)
    for place in carried.places:
        if Path(place.text).parent == Path(carried.written) and not (folder / place.within).exists():
            shutil.copyfile(at[place.text], folder / place.within)
    before = set(os.listdir(folder))
    result = pickle.dumps(moved(call, at | {carried.written: str(folder)})())
    new = [name for name in os.listdir(folder) if name not in {MARK, *before} and not TEMPORARY.fullmatch(name)]
    return Answer(result, files={name: (folder / name).read_bytes() for name in new})


def _find_modules(cwd: str, roots: Iterable[str]) -> None:
    """Import the user's modules from `roots`, and work where the sweep does, if this machine has that folder."""
    sys.path[:0] = [root for root in roots if root not in sys.path]
    os.chdir(cwd if os.path.isdir(cwd) else _cache())


# --- the files on this machine ---


def _cache() -> Path:
    """The folder for carried files; several machines may share a home."""
    base = os.environ.get(FOLDER) or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softprune"
    folder = Path(base) / socket.gethostname()
    try:
        marked.cells(folder)
    except OutputError as error:
        raise OutputError(f"{error} (on the node {socket.gethostname()}: with {FOLDER})") from None
    return folder


@cache
def _is_in_place(bundle: Bundle) -> bool:
    return bundle.is_in_place()


_KNOWN: set[str] = set()  # the digests of bundles that this process has checked


def _copied(bundle: Bundle, parts: Parts) -> Path | Missing:
    """The folder of this machine with a copy of the bundle, written by the first worker that needs it."""
    folder = _cache() / bundle.digest
    if bundle.digest in _KNOWN:
        return folder
    with FileLock(folder.with_suffix(".lock")):
        if not bundle.is_in(folder):
            content = parts(bundle.digest)
            if content is None:
                return Missing((bundle.digest,))
            bundle.unpack(content, folder)
    _KNOWN.add(bundle.digest)
    return folder


@cache
def _scratch() -> "TemporaryDirectory[str]":
    """The folder for files that calls in this process write; later calls find them there."""
    return TemporaryDirectory(prefix="softprune-", ignore_cleanup_errors=True)


def _pickled(error: Exception) -> bytes:
    """An error as it can be read elsewhere, where its class may be missing."""
    try:
        found = pickle.dumps(error)
        pickle.loads(found)
        return found
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
