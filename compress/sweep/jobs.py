"""Run many independent jobs; each result is a file, so that an interrupted sweep can be resumed."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial

from compress.errors import CompressError, LostWorkerError, SweepError
from compress.files import marked
from compress.run.interruption import Stop
from compress.sweep.cell_store import Cells, Code, Result
from compress.sweep.cluster.carried import Carried
from compress.sweep.engines import ONE, Workers
from compress.wording import count_of


@dataclass(frozen=True)
class Job:
    """One cell of a sweep.

    key: a hash of everything that determines the result; names the result's file.
    title: its name for people.
    call: computes the result, a JSON document; must be picklable, such as a `functools.partial` of a function.
    needs: keys of jobs whose side effects (a trained network) this one reads.
    cost: its duration, in any unit shared by all jobs; for the time left.
    code: the code that computes the result; results of other code are not used.
    carried: finds the files that `call` reads and writes, when it is to be computed on another machine.
    """

    key: str
    title: str
    call: Callable[[], Mapping[str, object]]
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    code: Code = field(default_factory=dict)
    carried: Callable[[], Carried] | None = None


@dataclass(frozen=True)
class Progress:
    done: int
    total: int
    seconds_left: float | None
    title: str  # the title of the job that ended last


def fingerprint(determinants: Mapping[str, object]) -> str:
    """A job's key, from everything that determines its result, as JSON."""
    return hashlib.sha256(json.dumps(determinants, sort_keys=True).encode()).hexdigest()[:16]


def run(
    jobs: Sequence[Job],
    cells: Cells,
    workers: Workers = ONE,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Result]:
    """Compute the jobs without a result in `cells`, in order as far as `needs` allows.

    Several sweeps may share a folder, even at the same time: at worst both compute a job, with the same result.

    Args:
        workers: the workers that compute the jobs, each on one thread.

    Returns:
        All results, by key; each also has the `seconds` it took.

    Raises:
        InputError: the engine's package is not installed.
        SweepError: jobs failed. All jobs that do not need them were run first, and their results are kept.
        LostWorkerError: a worker process died; finished results are kept.
        Interrupted: by a signal; running cells are abandoned.
    """
    marked.cells(cells.folder)
    results = cells.read((job.key, job.code) for job in jobs)
    todo = list({job.key: job for job in jobs if job.key not in results}.values())
    failed: list[str] = []
    lost: set[str] = set()  # the keys of failed jobs, and of those that need them
    watch = _Watch(len(todo), sum(job.cost for job in todo), on_progress)
    stop = Stop()
    with stop.listening(), workers.started() as pool:
        waiting, running = todo, dict[Future[Result], Job]()
        while waiting or running:
            stop.check()
            while more := {job.key for job in waiting if lost & set(job.needs)} - lost:
                lost |= more
            waiting = [job for job in waiting if job.key not in lost]
            ready = [job for job in waiting if not _unmet(job, waiting, running.values())]
            for job in ready[: workers.count - len(running)]:
                running[pool.submit(partial(_work, job.call), job.carried)] = job
                waiting.remove(job)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    # Written here, not in the worker, which may be killed at any moment.
                    cells.write(job.key, job.code, result := future.result())
                    results[job.key] = result
                except LostWorkerError as error:
                    raise LostWorkerError(f"{job.title}: {error}; finished cells are kept in {cells.folder}") from error
                except CompressError as error:
                    failed.append(f"{job.title}: {error}")
                    lost.add(job.key)
                watch.ended(job)
    if failed:
        raise SweepError(f"{len(failed)} of {count_of(len(todo), 'cell')} failed; the first: {failed[0]}")
    return results


def _unmet(job: Job, waiting: Iterable[Job], running: Iterable[Job]) -> bool:
    pending = {other.key for other in (*waiting, *running)}
    return any(need in pending for need in job.needs)


def _work(call: Callable[[], Mapping[str, object]]) -> Result:
    started = time.perf_counter()
    result: Result = dict(call())
    result["seconds"] = round(time.perf_counter() - started, 2)
    return result


class _Watch:
    """Reports the progress of the sweep after each job."""

    def __init__(self, jobs: int, cost: float, on_progress: Callable[[Progress], None]) -> None:
        self._jobs, self._cost, self._tell = jobs, cost, on_progress
        self._done, self._spent, self._started = 0, 0.0, time.monotonic()

    def ended(self, job: Job) -> None:
        self._done += 1
        self._spent += job.cost
        left = (time.monotonic() - self._started) * (self._cost / self._spent - 1) if self._spent else None
        self._tell(Progress(self._done, self._jobs, left, job.title))
