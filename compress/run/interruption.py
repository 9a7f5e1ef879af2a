"""Ctrl-C and SIGTERM: a training in progress first finishes its step, everything else stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from compress.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the run should end. While `deferred`, the first signal only records this; a second one ends the run.

    Raises `Interrupted` wherever the program is.
    """

    def __init__(self) -> None:
        self._wanted: int | None = None
        self._deferring = False

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
        try:
            for handler in before.values():
                if isinstance(other := getattr(handler, "__self__", None), Stop):
                    other.check()
            yield
        finally:
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
        at_once = not self._deferring or self.wanted
        # For the next `check`, if Python swallows the exception, as in a destructor or by an `except:`.
        self._wanted = number
        if at_once:
            raise Interrupted(number)
