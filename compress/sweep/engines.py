"""Where the jobs of a sweep are computed: in this process, in processes of this machine, or on a Ray cluster.

Every worker uses one thread: on two cores, two processes with two threads each take several times as long as two with
one.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, Literal, Protocol, TypeVar

from compress import worker_signals
from compress.errors import CompressError, LostWorkerError, MissingPackageError

Engine = Literal["local", "ray"]
Answer = TypeVar("Answer")

RETRIES = 3
"""How often a call is repeated after losing its worker, on a cluster."""


class Pool(Protocol):
    """Runs several calls at once; a context manager, so that no process outlives the sweep."""

    def submit(self, call: Callable[[], Answer]) -> "Future[Answer]":
        """Make the call, which must be picklable, in a worker.

        The future raises the call's error, or LostWorkerError if the worker itself was lost.
        """


@dataclass(frozen=True)
class Workers:
    """The number of jobs computed at once, and where; a single local worker is this process."""

    count: int = 1
    engine: Engine = "local"

    def started(self) -> AbstractContextManager[Pool]:
        """Raises MissingPackageError if the engine's package is not installed."""
        if self.engine == "ray":
            return OnCluster(self.count)
        return InProcesses(self.count) if self.count > 1 else Here()


ONE = Workers()


class Here:
    """This process alone: a call is made at once."""

    def __enter__(self) -> "Here":
        _one_thread()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call: Callable[[], Answer]) -> "Future[Answer]":
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

    def submit(self, call: Callable[[], Answer]) -> "Future[Answer]":
        with worker_signals.starting():
            return _translated(self._pool.submit(call), _of_pool)


class OnCluster:
    """Ray's workers: of the cluster that RAY_ADDRESS names, else of a local one that ends with the sweep.

    A call whose worker is lost is repeated on another one. All machines must see this process's working folder, and
    all files that a call reads and writes, under the same paths.
    """

    def __init__(self, count: int) -> None:
        try:
            import ray
        except ImportError:
            raise MissingPackageError("--engine ray needs the package ray: pip install 'softprune[ray]'") from None
        self._ray, self._count = ray, count

    def __enter__(self) -> "OnCluster":
        if "RAY_ADDRESS" in os.environ:
            self._ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        else:
            self._ray.init(
                num_cpus=self._count, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False
            )
        self._remote = self._ray.remote(num_cpus=1, max_retries=RETRIES)(_on_one_thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def submit(self, call: Callable[[], Answer]) -> "Future[Answer]":
        return _translated(self._remote.remote(call, os.getcwd()).future(), self._of_ray)

    def _of_ray(self, error: BaseException) -> BaseException:
        if isinstance(error, self._ray.exceptions.RayTaskError):
            return error.cause or error
        if isinstance(error, self._ray.exceptions.RayError):
            return LostWorkerError(f"its worker was lost {RETRIES + 1} times (out of memory?): {error}")
        return error


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
    _one_thread()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _on_one_thread(call: Callable[[], Any], folder: str) -> Any:
    os.chdir(folder)
    _one_thread()
    return call()
