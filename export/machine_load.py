"""How busy other programs keep the machine's processor while something is timed."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.results import Load

STAT = Path("/proc/stat")


class LoadMeter:
    """Measures over several spans of time; only Linux tells it."""

    def __init__(self) -> None:
        self._seconds, self._busy, self._own = 0.0, 0.0, 0.0
        self._told = True

    @contextmanager
    def measuring(self) -> Iterator[None]:
        before, own, began = busy_seconds(), time.process_time(), time.monotonic()
        yield
        after = busy_seconds()
        if before is None or after is None:
            self._told = False
            return
        self._busy += after - before
        self._own += time.process_time() - own
        self._seconds += time.monotonic() - began

    @property
    def load(self) -> Load | None:
        """None where the system does not tell, or nothing was measured."""
        cores = os.cpu_count()
        if not self._told or not self._seconds or cores is None:
            return None
        busy = (self._busy - self._own) / self._seconds
        return {"cores": cores, "busy": round(min(max(busy, 0.0), cores), 2)}


def busy_seconds() -> float | None:
    """What all cores together have worked since the machine started, in steps of 10 ms; None where it is not told."""
    try:
        with STAT.open(encoding="ascii") as file:
            name, *ticks = file.readline().split()
        user, nice, system, _idle, _waiting, irq, softirq = map(int, ticks[:7])
    except (OSError, ValueError):
        return None
    if name != "cpu":
        return None
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
