"""A process between the sweep and Ray. Ray ends the process that uses it where it loses the cluster's head for long.

The sweep talks to it through a pipe. Calls pass through as bytes, so it needs neither torch nor the user's modules.
"""

import logging
import os
import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from compress import worker_signals
from compress.errors import CompressError
from compress.sweep.cluster.bundles import Bundle
from compress.sweep.cluster.node import Answer, Missing, Task, work

RETRIES = 3
"""How often a call is repeated after losing its worker."""

WITHOUT_HEAD = 20
"""Seconds without the head after which a connection counts as lost."""

LOOK = 2.0
"""Seconds between two looks at whether this machine is still a node of the cluster."""


@dataclass(frozen=True)
class Joined:
    """There is a cluster."""


@dataclass(frozen=True)
class Refused:
    """There is no cluster at the address, or none that can be used."""

    why: str


@dataclass(frozen=True)
class Submitted:
    """A call. `carried` has been sent before, under its number."""

    number: int
    task: Task
    carried: int


@dataclass(frozen=True)
class Ended:
    """The end of a call: its answer, or why there is none."""

    number: int
    answer: Answer | str


def serve(pipe: Connection, count: int, parent: int) -> None:
    """Join the cluster that RAY_ADDRESS names, or start a local one of `count` workers, and serve until it is lost."""
    worker_signals.obey(parent)
    _silence()
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(WITHOUT_HEAD))
    import ray

    try:
        if "RAY_ADDRESS" in os.environ:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(num_cpus=count, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except Exception as error:
        pipe.send(Refused(str(error).strip().split("\n")[0] or type(error).__name__))
        return
    pipe.send(Joined())
    try:
        _Broker(ray, pipe).run()
    finally:
        ray.shutdown()


def _silence() -> None:
    """Ray writes to both outputs from C++, and `--json` promises a single document there."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


class _Broker:
    def __init__(self, ray: Any, pipe: Connection) -> None:
        self._ray, self._pipe = ray, pipe
        self._work = ray.remote(num_cpus=1, max_retries=RETRIES)(_on_node)
        self._carried: dict[int, tuple[Any, dict[str, Bundle]]] = {}  # as objects of Ray, and their bundles by digest
        self._parts: dict[str, list[Any]] = {}  # the contents that a node has asked for
        self._running: dict[int, Submitted] = {}
        self._events = queue.SimpleQueue[Any]()

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        node = self._ray.get_runtime_context().get_node_id()
        while True:
            try:
                event = self._events.get(timeout=LOOK)
            except queue.Empty:
                if not any(found["NodeID"] == node and found["Alive"] for found in self._ray.nodes()):
                    return
                continue
            if event is None:
                return
            if isinstance(event, Submitted):
                self._running[event.number] = event
                self._submit(event)
            elif isinstance(event, Ended):
                self._end(event)
            else:
                number, carried = event
                bundles = {bundle.digest: bundle for bundle in carried.bundles}
                self._carried[number] = self._ray.put(carried), bundles

    def _read(self) -> None:
        """Pass on what the sweep sends; None at its end."""
        event: object = True
        while event is not None:
            try:
                event = self._pipe.recv()
            except (EOFError, OSError):
                event = None
            self._events.put(event)

    def _submit(self, call: Submitted) -> None:
        carried, bundles = self._carried[call.carried]
        parts = {digest: self._parts[digest] for digest in bundles if digest in self._parts}
        future = self._work.remote(call.task, carried, parts).future()
        future.add_done_callback(lambda found: self._events.put(Ended(call.number, self._outcome(found))))

    def _outcome(self, future: Any) -> Any:
        try:
            return future.result()
        except self._ray.exceptions.RayTaskError as error:  # the call's own errors are answers
            return f"a node cannot run softprune: {str(error.cause or error).strip().splitlines()[-1]}"
        except Exception as error:
            return f"its worker was lost {RETRIES + 1} times (out of memory?): {error}"

    def _end(self, event: Ended) -> None:
        if isinstance(event.answer, Missing):
            call = self._running[event.number]
            try:
                for digest in event.answer.digests:
                    if digest not in self._parts:
                        bundle = self._carried[call.carried][1][digest]
                        self._parts[digest] = [self._ray.put(part) for part in bundle.parts()]
                self._submit(call)
                return
            except CompressError as error:
                event = Ended(event.number, str(error))
        del self._running[event.number]
        self._pipe.send(event)


def _on_node(task: Task, carried: Any, parts: dict[str, list[Any]]) -> Answer | Missing:
    import ray

    def read(digest: str) -> Iterable[bytes] | None:
        return (ray.get(part) for part in parts[digest]) if digest in parts else None

    return work(task, carried, read)
