"""What a run has come to, so that it can be left after any training step and gone on with, to the last bit.

A run is a sequence of chapters, such as its stages, and each leaves a result. Within a chapter

    follow   parts change from step to step: the model, the choice, the pruner, the training loop
    note     figures are measured once, and needed at the chapter's end

A checkpoint has all three. Whoever goes on runs the same code again: a chapter that is over gives its result at once,
what was noted is not measured again, and a part gets its state back where it is followed.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from compress.data.streaming import explain
from compress.errors import DivergedError, OutputError
from compress.run.checkpoints import Checkpoints, Fingerprint, State, alone
from compress.run.clock import Clock
from compress.run.interruption import Stop
from compress.run.output import folder_of

Result = TypeVar("Result")

SHARE = 0.02
"""Of the run's time, at most, goes into checkpoints between the ends of chapters, however large the network is."""


class Stateful(Protocol):
    """Whose state, nested in dicts, lists and tuples, is of tensors and plain values."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Journal:
    """Without `checkpoints` nothing is kept, and nothing costs anything."""

    def __init__(
        self,
        checkpoints: Checkpoints | None = None,
        stop: Stop | None = None,
        every: float = 60.0,
        resume: bool = False,
        *,
        quiet: bool = False,
        writes: bool = True,
    ) -> None:
        """
        Args:
            every: seconds between two checkpoints within a chapter.
            resume: go on from the latest checkpoint, where there is one, and say so unless `quiet`.
            writes: of several processes that train together, one writes what all of them read.
        """
        self._quiet = quiet
        self._checkpoints, self._stop, self._every, self._resume = checkpoints, stop or Stop(), every, resume
        self._writes = writes
        self._clock = Clock()
        self._parts: dict[str, Stateful] = {}
        self._results: dict[str, Any] = {}  # of chapters
        self._notes: dict[str, Any] = {}  # of the one that is being written
        self._saved: State = {}  # states of parts that have not come up yet
        self._title, self._due = "", 0.0
        self.opened = False  # whether there is a run to go on with, rather than arguments of another one

    @property
    def folder(self) -> Path | None:
        """Where what is half-written may lie until it is whole."""
        return None if self._checkpoints is None else self._checkpoints.folder

    def open(self, fingerprint: Fingerprint, clock: Clock) -> None:
        """The run begins, or goes on.

        Args:
            fingerprint: everything that determines what the run comes to.
            clock: writing checkpoints is its phase "checkpoints".

        Raises:
            InputError: what is to be gone on with is of another run.
        """
        self._clock = clock
        if self._checkpoints is None:
            return
        self._checkpoints.fingerprint = fingerprint
        found = self._checkpoints.latest() if self._resume else None
        if found is not None:
            self._saved, self._results, self._notes = (found.state[key] for key in ("parts", "results", "notes"))
        if self._resume and not self._quiet:
            nothing = f"nothing to go on from in {self._checkpoints.folder}: this is the beginning"
            self._checkpoints.tell(nothing if found is None else f"going on from {found.where}")
        self._due, self.opened = time.monotonic() + self._every, True

    def follow(self, name: str, part: Stateful, *, instead_of: str | None = None) -> None:
        """From now on checkpoints have the state of `part`; where there is a saved one, it is loaded now.

        Args:
            instead_of: the part of that name is not followed until the chapter's end.
        """
        if self._checkpoints is None:
            return
        if instead_of is not None:
            self._parts.pop(instead_of, None)
        self._parts[name] = part
        if name in self._saved:
            part.load_state_dict(self._saved.pop(name))

    def close(self) -> None:
        """There is no more training: nothing is followed from now on, nor held in memory for it."""
        self._parts = {}

    def has(self, name: str) -> bool:
        """Whether a state has been saved for the part of that name, which has not come up yet."""
        return name in self._saved

    def note(self, name: str, measure: Callable[[], Result]) -> Result:
        """What `measure()` gives, or gave before the interruption; within `notes`."""
        if name not in self._notes:
            self._notes[name] = measure()
        found: Result = self._notes[name]
        return found

    def noted(self, name: str) -> Any:
        """What was noted, or None."""
        return self._notes.get(name)

    @contextmanager
    def notes(self) -> Iterator[None]:
        """What is noted in the block is forgotten at its end."""
        try:
            yield
        finally:
            self._notes = {}

    def chapter(self, title: str, write: Callable[[], Result]) -> Result:
        """What `write()` gives, or gave before the interruption; what comes up within it is over with it."""
        if title in self._results:
            found: Result = self._results[title]
            return found
        parts, self._title = dict(self._parts), title
        done = self._results[title] = write()
        self._parts = parts
        self._keep(f"the end of {title}")
        self._stop.check()
        return done

    @contextmanager
    def training(self, steps: int) -> Iterator[Callable[[int], None]]:
        """Call what it yields after each of `steps` steps: now and then, and before it ends by a signal, it keeps all.

        Raises:
            Interrupted: by a signal.
        """
        with self._stop.deferred():
            yield lambda step: self._step(step, steps)

    def _step(self, step: int, steps: int) -> None:
        stopping = self._stop.wanted
        if self._checkpoints is not None and self._writes and (stopping or time.monotonic() >= self._due):
            self._keep(f"{self._title}, step {step:,} of {steps:,}")
        if stopping:
            self._stop.check()

    def _keep(self, where: str) -> None:
        if self._checkpoints is None or not self._writes:
            return
        with self._clock.phase("checkpoints"), self._stop.deferred():
            started = time.monotonic()
            states = {name: part.state_dict() for name, part in self._parts.items()}
            self._checkpoints.write({"parts": states, "results": self._results, "notes": self._notes}, where)
            now = time.monotonic()
        self._due = now + max(self._every, (now - started) / SHARE)


@contextmanager
def kept(
    out: Path,
    *,
    resume: bool,
    force: bool,
    quiet: bool,
    every: float,
    command: str,
    tell: Callable[[str], None],
    first: bool = True,
    drafts: Collection[str] = (),
) -> Iterator[Journal]:
    """The journal of a run that leaves `out`; once it is complete, nothing is kept of it.

    An error that leaves checkpoints has a note with the `command` that goes on.

    Args:
        first: whether this is the process that writes, of those that train together.
        drafts: the names of the files that the run writes, and may leave half-written.

    Raises:
        OutputError: another run writes `out`, or has left what could be gone on with (unless `resume` or `force`).
    """
    folder, stop = folder_of(out), Stop()
    if not first:
        with stop.listening():
            yield Journal(Checkpoints(folder, tell), stop, every, resume, quiet=True, writes=False)
        return
    go_on = f"to go on: {command}"
    with alone(folder, out, tell, drafts):
        checkpoints = Checkpoints(folder, tell)
        if checkpoints.where and not resume:
            if not force:
                raise OutputError(
                    f"{folder} has what an interrupted run has done until {checkpoints.where}; {go_on}; "
                    "to begin anew: --force"
                )
            checkpoints.clear()
        journal = Journal(checkpoints, stop, every, resume, quiet=quiet)
        try:
            with stop.listening(), _of_workers(stop):
                yield journal
        except DivergedError:
            checkpoints.clear()  # it would only come to the same end
            raise
        except (Exception, KeyboardInterrupt) as error:
            if journal.opened and checkpoints.where:
                error.add_note(f"what was done until {checkpoints.where} is kept in {folder}; {go_on}")
            raise
        checkpoints.clear()


@contextmanager
def _of_workers(stop: Stop) -> Iterator[None]:
    """Workers of somebody's own loader end by a signal to all processes, and torch tells of it like of a crash."""
    try:
        yield
    except RuntimeError as error:
        stop.check()
        explain(error)
