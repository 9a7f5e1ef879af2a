"""Worker processes that ignore signals, except from the process that started them.

Ctrl-C in a terminal, a batch system and systemd signal all processes of a job at once. A run ends its step first, which
takes its workers: a worker ends only when its own process tells it to, or has ended itself.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 1.0
"""Between two looks at whether the process that has started this one is still there."""

_KNOWN = hasattr(signal, "sigtimedwait")  # as on Linux; only it names the sender of a signal


@contextmanager
def starting() -> Iterator[None]:
    """Processes started in the block get no signal before they `obey`; this process gets its own after the block."""
    if not _KNOWN:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey(parent: int) -> None:
    """Called first in a worker: from now on only the process `parent` can end it, by SIGTERM or by its own end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _KNOWN:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    asked = False
    while not asked and os.getppid() == parent:
        found = signal.sigtimedwait((signal.SIGTERM,), SECONDS)
        asked = found is not None and found.si_pid == parent
    os._exit(0)  # with any other code torch takes it for a crash
