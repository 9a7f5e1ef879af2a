"""Measurements in separate processes, with limits of time and memory, each stored in a file and made once."""

import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIME_LIMIT = 120
MEMORY_LIMIT = 16 << 30
Row = dict[str, Any]
Parts = Mapping[str, Callable[[str], Row]]
"""What is measured of a network, by the name of the part."""


def measure(parts: Parts, part: str, name: str, cache: Path) -> Row:
    """The measurement in the cache, or that of a new process."""
    file = cache / part / f"{name}.json"
    if file.exists():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    file.parent.mkdir(parents=True, exist_ok=True)
    # A fork has torch imported already, which takes longer than many a network.
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_one, args=(parts[part], name, theirs))
    process.start()
    theirs.close()
    try:
        found: Row = mine.recv()
    except EOFError:
        process.join()
        found = {"pass": False, "error": _ended(process.exitcode)}
    process.join()
    file.write_text(json.dumps(found), encoding="utf-8")
    print(part, name, json.dumps(found), flush=True)
    return found


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"


def _ended(code: int | None) -> str:
    """Why a process ended without an answer."""
    if code == -signal.SIGXCPU:
        return f"took more than {TIME_LIMIT} seconds"
    return f"its process was ended by {signal.Signals(-code).name}" if code and code < 0 else f"it exited with {code}"


def _one(function: Callable[[str], Row], name: str, pipe: Connection) -> None:
    """In its own process; seconds are those of its processor, whatever else the machine does."""
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT, TIME_LIMIT + 5))  # at the second it would be SIGKILL
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    begin = time.process_time()
    try:
        found = function(name)
    except MemoryError:
        found = {"pass": False, "error": f"took more than {MEMORY_LIMIT >> 30} GB"}
    except Exception as error:
        found = {"pass": False, "error": short(error)}
    pipe.send(found | {"seconds": time.process_time() - begin})
