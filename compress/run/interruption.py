"""Ctrl-C and SIGTERM: a training in progress first finishes its step, everything else stops at once."""

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from compress.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)

TOGETHER = 1.0
"""Seconds within which signals are one: torchrun and timeout signal a process, and its group as well."""

AGAIN = 0.05
"""Seconds after which a signal is raised again whose exception was lost."""


class Stop:
    """Whether the run should end. While `deferred`, the first signal only records this; a second one ends the run.

    Raises `Interrupted` wherever the program is. In a destructor, a callback of a weak reference or a hook around a
    fork, Python prints an exception and drops it, and a library's `except:` may drop it, too: then it is raised again.
    """

    def __init__(self) -> None:
        self._wanted: int | None = None
        self._since = 0.0
        self._deferring = False
        self._listening = False
        self._raised: weakref.ref[Interrupted] | None = None

    @property
    def wanted(self) -> bool:
        return self._wanted is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals in the block. Only the main thread can; in others this does nothing.

        Afterwards the earlier handlers are restored, unless other code has replaced ours since.

        Raises:
            Interrupted: the earlier listener has received a signal, and Python has swallowed its exception.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        hook = sys.unraisablehook
        sys.unraisablehook = partial(self._unraisable, hook)
        self._listening = True
        try:
            for handler in before.values():
                if isinstance(other := getattr(handler, "__self__", None), Stop):
                    other.check()
            yield
        finally:
            self._listening = False
            sys.unraisablehook = hook
            for number, handler in before.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        before, self._deferring = self._deferring, True
        try:
            yield
        finally:
            self._deferring = before

    def check(self) -> None:
        """Raises Interrupted if a signal has arrived."""
        if self._wanted is not None:
            raise Interrupted(self._wanted)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        at_once = not self._deferring or (self.wanted and time.monotonic() > self._since + TOGETHER)
        if not self.wanted:
            self._since = time.monotonic()
        self._wanted = number
        if at_once:
            error = Interrupted(number)
            self._raised = weakref.ref(error, partial(self._lost, number, os.getpid()))
            try:
                raise error
            finally:
                del error  # or it would keep itself, through its own traceback

    def _lost(self, number: int, process: int, raised: object) -> None:
        """The exception does not exist any more: if it has not ended the block, other code has dropped it."""
        if self._listening and os.getpid() == process:
            again = threading.Timer(AGAIN, self._repeat, (number,))
            again.daemon = True
            again.start()

    def _repeat(self, number: int) -> None:
        if self._listening and not self._deferring:  # else the next `check` raises it
            os.kill(os.getpid(), number)

    def _unraisable(self, before: Any, unraisable: "sys.UnraisableHookArgs") -> None:
        """Print no traceback of an exception that is raised again."""
        if not isinstance(unraisable.exc_value, Interrupted):
            before(unraisable)
