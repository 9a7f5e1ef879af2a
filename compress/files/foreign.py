"""The boundary to other libraries: whatever they raise about a file becomes an error of this package.

Work that no check beforehand can bound runs in a child process with limits of memory and time.
"""

import faulthandler
import json
import os
import re
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from compress import errors
from compress.errors import CompressError, InputError
from compress.wording import because

TIMES = 20
"""A file may take this many times its size in memory, ..."""

ROOM = 2**30
"""... beside this number of bytes, ..."""

SECONDS = 10.0
"""... and this many seconds, ..."""

SPEED = 10**7
"""... beside a second for this number of bytes."""

_SIGNATURE = re.compile(r"(?:(?:void|bool|\w+::\w+)[*&]* )?\w+(?:::[\w~]+)+\([^()]*\)")
"""The signature of a C++ function in onnxruntime's errors."""

LONGEST = 400
"""Characters of another library's message that an error repeats."""


def reason(error: BaseException) -> str:
    """What another library's error says, without the frames and files of its C++ code, on one line."""
    said = because(error) if isinstance(error, OSError) else str(error)
    text = said[: 10 * LONGEST]  # it can be as long as the file
    text = re.split(r"\nException raised from |\nC\+\+ CapturedTraceback|\nframe #\d", text)[0]
    words = [word for word in text.split() if not re.search(r"/\S{1,200}\.(cc|cpp|h|hpp|cu)\b", word[:LONGEST])]
    text = " ".join(_SIGNATURE.sub("", " ".join(words)).split())
    return (text[:LONGEST] + "..." if len(text) > LONGEST else text) or type(error).__name__


@contextmanager
def reading(error: type[InputError], what: str) -> Iterator[None]:
    """Turn whatever is raised into `error`, with `what` (which file, and what it should be) and the reason.

    Errors of this package pass. A file that exceeds the memory or the recursion limit is an error of the file.
    """
    try:
        yield
    except CompressError:
        raise
    except Exception as found:
        raise error(f"{what}: {reason(found)}") from found


def confined(work: Callable[[], Any], error: type[InputError], what: str, size: int, more_seconds: float = 0.0) -> Any:
    """The result of `work`, which JSON must be able to hold, computed in a child process with limits.

    The child's output is hidden, that of native code included. Without fork (Windows), `work` runs in this process.

    Args:
        what: which file, and what could not be done with it; the beginning of the error.
        size: bytes of the files that it is about; memory and time are in proportion to it (`allowed`).
        more_seconds: seconds that the user asked for beside these.

    Raises:
        InputError: `error`, where the child has used up its memory or its time, or died; else what `work` raised.
    """
    if not hasattr(os, "fork"):
        with reading(error, what):
            return work()
    room, seconds = allowed(size)
    seconds += more_seconds
    receiving, sending = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # of threads that the child lacks; it uses none of them
        child = os.fork()
    if not child:
        os.close(receiving)
        _run(work, error, what, sending, room, seconds)
    os.close(sending)
    try:
        answer = _received(receiving, time.monotonic() + seconds)
    finally:
        os.close(receiving)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if answer is None:
        raise error(f"{what}: it took longer than {seconds:.0f} s, for a file of {size:,} bytes")
    if not answer:
        ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "its end"
        raise error(f"{what}: its process met {ended}; it had {room:,} bytes of memory, for a file of {size:,} bytes")
    found = json.loads(answer)
    if "error" in found:
        raise getattr(errors, found["error"])(found["text"])
    return found["result"]


def allowed(size: int) -> tuple[int, float]:
    """Bytes of memory and seconds for a file of `size` bytes."""
    return ROOM + TIMES * size, SECONDS + size / SPEED


def _received(pipe: int, deadline: float) -> bytes | None:
    """All bytes until the other end is closed; None where that takes too long."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            part = os.read(pipe, 1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None


def _run(work: Callable[[], Any], error: type[InputError], what: str, pipe: int, room: int, seconds: float) -> NoReturn:
    """In the child: its result or its error into the pipe, and nothing else anywhere."""
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        sys.stdout = sys.stderr = open(silence, "w", encoding="utf-8")  # noqa: SIM115 (the process ends with it)
        faulthandler.disable()
        limit(room, seconds)
        if "torch" in sys.modules:  # its pool of threads is not in the child
            sys.modules["torch"].set_num_threads(1)
        try:
            with reading(error, what):
                answer = {"result": work()}
        except CompressError as found:
            known = type(found).__name__ if hasattr(errors, type(found).__name__) else error.__name__
            answer = {"error": known, "text": str(found)}
        with os.fdopen(pipe, "wb") as file:
            file.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def limit(room: int, seconds: float, process: int | None = None) -> None:
    """Give a process `room` bytes beside what this one has, and `seconds` of a processor; so far only Linux can.

    Args:
        process: its number; this one itself without it.
    """
    import resource

    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # only Linux says, and only there the limit holds
        return
    for kind, most in (
        (resource.RLIMIT_AS, used + room),
        (resource.RLIMIT_CPU, int(seconds) + 5),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.prlimit(process or 0, kind)[1]
        resource.prlimit(process or 0, kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
