"""Ctrl-C and SIGTERM: a training in progress ends its step first, everything else stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from compress.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether somebody wants the run to end. While it is `deferred`, the first signal only says so; a second ends it.

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
        """Only the main thread may say what signals do; in another one they do what they did before.

        So they do afterwards, but for those of which somebody else has said something since.

        Raises:
            Interrupted: whoever has listened until now has heard a signal, and Python has swallowed it.
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
        """Raises Interrupted where a signal has come."""
        if self._wanted is not None:
            raise Interrupted(self._wanted)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        at_once = not self._deferring or self.wanted
        # For the next `check`, where Python swallows what is raised, as in a destructor or by an `except:`.
        self._wanted = number
        if at_once:
            raise Interrupted(number)
