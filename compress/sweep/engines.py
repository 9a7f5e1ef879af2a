"""Where the jobs of a sweep are computed: in this process, in processes of this machine, or on a Ray cluster.

Every worker uses one thread: on two cores, two processes with two threads each take several times as long as two with
one.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from compress import worker_signals
from compress.errors import CompressError, LostWorkerError
from compress.sweep.threads import one_thread

if TYPE_CHECKING:
    from compress.sweep.cluster.carried import Carried

PATIENCE = 300.0
"""Seconds that a sweep waits for a lost cluster."""

Engine = Literal["local", "ray"]
Answer = TypeVar("Answer")


class Pool(Protocol):
    """Runs several calls at once; a context manager, so that no process outlives the sweep."""

    def submit(self, call: Callable[[], Answer], carried: "Callable[[], Carried] | None" = None) -> "Future[Answer]":
        """Make the call, which must be picklable, in a worker.

        The future raises the call's error, or LostWorkerError if the worker itself was lost.

        Args:
            carried: finds the files that the call reads and writes, for workers on other machines.
        """


@dataclass(frozen=True)
class Workers:
    """The number of jobs computed at once, and where; a single local worker is this process.

    patience: the seconds to wait for a lost cluster.
    """

    count: int = 1
    engine: Engine = "local"
    patience: float = PATIENCE

    def started(self) -> AbstractContextManager[Pool]:
        """Raises MissingPackageError if the engine's package is not installed."""
        if self.engine == "ray":
            from compress.sweep.cluster.pool import OnCluster

            return OnCluster(self.count, self.patience)
        return InProcesses(self.count) if self.count > 1 else Here()


ONE = Workers()


class Here:
    """This process alone: a call is made at once."""

    def __enter__(self) -> "Here":
        one_thread()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call: Callable[[], Answer], carried: "Callable[[], Carried] | None" = None) -> "Future[Answer]":
        future: Future[Answer] = Future()
        try:
            future.set_result(call())
        except CompressError as error:
            future.set_exception(error)
        return future


class InProcesses:
    """Processes that import torch once and are reused; they end with this one, however it ends."""

    def __init__(self, count: int) -> None:
        resource_tracker.ensure_running()  # its own start would undo what `worker_signals.starting` does to signals
        # A forked copy of a process that runs torch's threads can hang.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(os.getpid(),))
        self._others = {process.pid for process in multiprocessing.active_children()}

    def __enter__(self) -> "InProcesses":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, CompressError):
            # An interrupted sweep does not wait for its running cells. SIGTERM might get lost: it merges with an
            # earlier SIGTERM that the worker has not handled yet.
            for process in multiprocessing.active_children():
                if process.pid not in self._others:
                    process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, call: Callable[[], Answer], carried: "Callable[[], Carried] | None" = None) -> "Future[Answer]":
        with worker_signals.starting():
            return _translated(self._pool.submit(call), _of_pool)


def _translated(future: "Future[Answer]", translate: Callable[[BaseException], BaseException]) -> "Future[Answer]":
    """The same future, with the engine's errors translated to ours."""
    ours: Future[Answer] = Future()

    def pass_on(theirs: "Future[Answer]") -> None:
        if theirs.cancelled():
            ours.cancel()
        elif error := theirs.exception():
            ours.set_exception(translate(error))
        else:
            ours.set_result(theirs.result())

    future.add_done_callback(pass_on)
    return ours


def _of_pool(error: BaseException) -> BaseException:
    if isinstance(error, BrokenProcessPool):
        return LostWorkerError("a worker process died (out of memory?)")
    return error


def _begin(parent: int) -> None:
    worker_signals.obey(parent)
    one_thread()
