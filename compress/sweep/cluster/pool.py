"""The workers of a Ray cluster, as a sweep uses them; the loss of the cluster's head is survived."""

import multiprocessing
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from compress import worker_signals
from compress.errors import CompressError, InputError, LostWorkerError, MissingPackageError
from compress.files import marked
from compress.files.atomic import atomic
from compress.run_warnings import RunWarning
from compress.sweep.cluster.broker import RETRIES, Ended, Joined, Refused, Submitted, serve
from compress.sweep.cluster.carried import NOTHING, Carried
from compress.sweep.cluster.node import Answer, Task

Result = TypeVar("Result")

BETWEEN = 2.0
"""Seconds between two tries to join it."""


class LostClusterWarning(RunWarning):
    """The connection to the Ray cluster was lost."""

    kind = "lost_cluster"


@dataclass
class _Call:
    """A call that has no answer yet."""

    task: Task
    carried: Carried
    future: "Future[Any]"


class OnCluster:
    """Ray's workers: of the cluster that RAY_ADDRESS names, else of a local one that ends with the sweep.

    A call whose worker is lost is repeated on another one. If the cluster itself is lost, for instance because its head
    has died, its running calls are repeated when it is back.

    patience: the seconds to wait for that.
    """

    def __init__(self, count: int, patience: float) -> None:
        try:
            import ray
        except ImportError:
            raise MissingPackageError("--engine ray needs the package ray: pip install 'softprune[ray]'") from None
        self._pickle: Callable[[object], bytes] = ray.cloudpickle.dumps
        self._count, self._patience = count, patience
        self._lock = threading.RLock()
        self._calls: dict[int, _Call] = {}
        self._numbers: dict[Carried, int] = {}
        self._sent: set[int] = set()  # the numbers of what the broker knows
        self._next, self._losses = 0, 0
        self._closing = False
        self._lost: LostWorkerError | None = None
        self._broker: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "OnCluster":
        self._start_broker()
        found = self._greeting()
        if isinstance(found, Refused):
            self._end_broker()
            if (address := os.environ.get("RAY_ADDRESS")) is None:
                raise LostWorkerError(f"--engine ray: no Ray cluster can be started here ({found.why})")
            raise InputError(
                f"--engine ray: no Ray cluster can be used at {address} ({found.why}); start its head there with `ray "
                "start --head`, join this machine to it with `ray start --address`, or unset RAY_ADDRESS"
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            self._closing = True
            # An interrupted sweep does not wait for its running cells.
            self._end_broker(at_once=kind is not None and not issubclass(kind, CompressError))
        self._reader.join()

    def submit(self, call: Callable[[], Result], carried: Callable[[], Carried] | None = None) -> "Future[Result]":
        future: Future[Result] = Future()
        try:
            waiting = _Call(Task(self._pickle(call), os.getcwd()), NOTHING if carried is None else carried(), future)
        except CompressError as error:
            future.set_exception(error)
            return future
        with self._lock:
            if self._lost is not None:
                future.set_exception(self._lost)
            else:
                number, self._next = self._next, self._next + 1
                self._calls[number] = waiting
                self._send(number, waiting)
        return future

    def _send(self, number: int, call: _Call) -> None:
        assert self._pipe is not None
        known = self._numbers.setdefault(call.carried, len(self._numbers))
        with suppress(OSError):  # the reader finds out as well, and sends all calls again
            if known not in self._sent:
                self._pipe.send((known, call.carried))
                self._sent.add(known)
            self._pipe.send(Submitted(number, call.task, known))

    # --- the broker ---

    def _start_broker(self) -> None:
        resource_tracker.ensure_running()  # as in `InProcesses`
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._broker = context.Process(target=serve, args=(theirs, self._count, os.getpid()), daemon=True)
        with worker_signals.starting():
            self._broker.start()
        theirs.close()
        self._sent.clear()

    def _greeting(self, seconds: float | None = None) -> Joined | Refused:
        """Whether the new broker has joined a cluster: within the time, or however long it takes to find out."""
        assert self._pipe is not None
        try:
            if not self._pipe.poll(seconds):
                return Refused("it does not answer")
            found: Joined | Refused = self._pipe.recv()
            return found
        except (EOFError, OSError):
            return Refused("Ray has ended its process")

    def _end_broker(self, *, at_once: bool = True) -> None:
        """Ray ends the calls of a process that has ended."""
        if self._broker is None or self._pipe is None:
            return
        if not at_once:
            with suppress(OSError):
                self._pipe.send(None)
            self._broker.join(10)
        self._broker.kill()
        self._broker.join()
        self._pipe.close()

    def _read(self) -> None:
        """Resolve the futures, in a thread, until the sweep ends or the cluster is lost for good."""
        while not self._closing:
            try:
                assert self._pipe is not None
                event = self._pipe.recv()
            except (EOFError, OSError):
                if self._closing or not self._rejoin():
                    return
                continue
            if isinstance(event, Ended):
                with self._lock:
                    call, self._losses = self._calls.pop(event.number), 0
                _resolve(call, event.answer)

    def _rejoin(self) -> bool:
        """Wait for the lost cluster, and send the calls again that have no answer."""
        address = os.environ.get("RAY_ADDRESS", "this machine")
        warnings.warn(
            f"the connection to the Ray cluster at {address} is lost; waiting up to {self._patience:g} s for its head",
            LostClusterWarning,
            stacklevel=2,
        )
        self._losses += 1
        deadline = time.monotonic() + self._patience
        why = f"it was lost {self._losses} times without a finished cell"
        while self._losses <= RETRIES and (left := deadline - time.monotonic()) > 0:
            with self._lock:
                if self._closing:
                    return False
                self._end_broker()
                self._start_broker()
            found = self._greeting(left)
            with self._lock:
                if isinstance(found, Joined):
                    for number, call in self._calls.items():
                        self._send(number, call)
                    return True
            why = f"it did not come back within {self._patience:g} s ({found.why})"
            time.sleep(min(BETWEEN, max(0.0, deadline - time.monotonic())))
        with self._lock:
            self._lost = LostWorkerError(
                f"the connection to the Ray cluster at {address} is lost, and {why}; start its head again, and repeat "
                "the command"
            )
            calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call.future.set_exception(self._lost)
        return False


def _resolve(call: _Call, answer: Answer | str) -> None:
    if isinstance(answer, str):
        call.future.set_exception(LostWorkerError(answer))
        return
    try:
        found = pickle.loads(answer.pickled)
        if not answer.raised:
            _write(call.carried.written, answer.files)
    except CompressError as error:
        call.future.set_exception(error)
        return
    if answer.raised:
        call.future.set_exception(found)
    else:
        call.future.set_result(found)


def _write(folder: str | None, files: dict[str, bytes]) -> None:
    """Write what a call has written on its node to the sweep's own folder."""
    if folder is None or not files:
        return
    marked.cells(Path(folder))
    for name, content in files.items():
        with atomic(Path(folder) / name) as temporary:
            temporary.write_bytes(content)
