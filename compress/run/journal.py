"""The state of a run, so that it can be interrupted after any training step and resumed, bit for bit.

A run is a sequence of chapters, such as its stages, and each has a result. Within a chapter

    follow   tracks parts that change from step to step: the model, the choice, the pruner, the training loop
    note     keeps figures that are measured once, and needed at the chapter's end

A checkpoint has all three. A resumed run executes the same code again: a finished chapter returns its result at once,
a noted figure is not measured again, and a part gets its state back when it is followed.
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
"""The largest share of the run's time spent on checkpoints within chapters, however large the network is."""


class Stateful(Protocol):
    """An object whose state consists of tensors and plain values, nested in dicts, lists and tuples."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Journal:
    """The journal of a run; without `checkpoints` it keeps nothing and costs nothing."""

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
            resume: resume from the latest checkpoint, if there is one, and say so unless `quiet`.
            writes: whether this process writes checkpoints; if several train together, one writes and all read.
        """
        self._quiet = quiet
        self._checkpoints, self._stop, self._every, self._resume = checkpoints, stop or Stop(), every, resume
        self._writes = writes
        self._clock = Clock()
        self._parts: dict[str, Stateful] = {}
        self._results: dict[str, Any] = {}  # of finished chapters
        self._notes: dict[str, Any] = {}  # of the current chapter
        self._saved: State = {}  # states of parts that are not followed yet
        self._title, self._due = "", 0.0
        self.opened = False  # whether the run has begun, so that it can be resumed

    @property
    def folder(self) -> Path | None:
        """The folder for files until they are complete."""
        return None if self._checkpoints is None else self._checkpoints.folder

    def open(self, fingerprint: Fingerprint, clock: Clock) -> None:
        """Begin or resume the run.

        Args:
            fingerprint: everything that determines the result of the run.
            clock: writing checkpoints is its phase "checkpoints".

        Raises:
            InputError: the checkpoint belongs to another run.
        """
        self._clock = clock
        if self._checkpoints is None:
            return
        self._checkpoints.fingerprint = fingerprint
        found = self._checkpoints.latest() if self._resume else None
        if found is not None:
            self._saved, self._results, self._notes = (found.state[key] for key in ("parts", "results", "notes"))
        if self._resume and not self._quiet:
            nothing = f"nothing to resume in {self._checkpoints.folder}: starting from the beginning"
            self._checkpoints.tell(nothing if found is None else f"resuming from {found.where}")
        self._due, self.opened = time.monotonic() + self._every, True

    def follow(self, name: str, part: Stateful, *, instead_of: str | None = None) -> None:
        """Include the state of `part` in checkpoints from now on; a saved state is loaded now.

        Args:
            instead_of: the name of a part that is not followed until the chapter's end.
        """
        if self._checkpoints is None:
            return
        if instead_of is not None:
            self._parts.pop(instead_of, None)
        self._parts[name] = part
        if name in self._saved:
            part.load_state_dict(self._saved.pop(name))

    def close(self) -> None:
        """Stop following all parts, so that they can be freed: the training is over."""
        self._parts = {}

    def has(self, name: str) -> bool:
        """Whether there is a saved state for the part `name`, which is not followed yet."""
        return name in self._saved

    def note(self, name: str, measure: Callable[[], Result]) -> Result:
        """The result of `measure()`, or its result from before the interruption; within `notes`."""
        if name not in self._notes:
            self._notes[name] = measure()
        found: Result = self._notes[name]
        return found

    def noted(self, name: str) -> Any:
        """The noted figure, or None."""
        return self._notes.get(name)

    @contextmanager
    def notes(self) -> Iterator[None]:
        """Forget the notes of the block at its end."""
        try:
            yield
        finally:
            self._notes = {}

    def chapter(self, title: str, write: Callable[[], Result]) -> Result:
        """The result of `write()`, or its result from before the interruption; parts are followed until its end."""
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
        """Yield a function to call after each of `steps` steps: it writes a checkpoint when due, or at a signal.

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
    """The journal of a run that writes `out`; a complete run keeps nothing of it.

    An error that leaves checkpoints has a note with the `command` that resumes the run.

    Args:
        first: whether this is the process that writes, if several train together.
        drafts: the names of the files that the run writes, and may leave half-written.

    Raises:
        OutputError: another run writes `out`, or has left checkpoints (unless `resume` or `force`).
    """
    folder, stop = folder_of(out), Stop()
    if not first:
        with stop.listening():
            yield Journal(Checkpoints(folder, tell), stop, every, resume, quiet=True, writes=False)
        return
    way_on = f"to resume: {command}"
    with alone(folder, out, tell, drafts):
        checkpoints = Checkpoints(folder, tell)
        if checkpoints.where and not resume:
            if not force:
                raise OutputError(
                    f"{folder} has the checkpoint of an interrupted run, at {checkpoints.where}; {way_on}; "
                    "to start over: --force"
                )
            checkpoints.clear()
        journal = Journal(checkpoints, stop, every, resume, quiet=quiet)
        try:
            with stop.listening(), _of_workers(stop):
                yield journal
        except DivergedError:
            checkpoints.clear()  # a resumed run would only diverge again
            raise
        except (Exception, KeyboardInterrupt) as error:
            if journal.opened and checkpoints.where:
                error.add_note(f"the state at {checkpoints.where} is kept in {folder}; {way_on}")
            raise
        checkpoints.clear()


@contextmanager
def _of_workers(stop: Stop) -> Iterator[None]:
    """A signal to all processes also ends the workers of a user's loader, and torch reports that like a crash."""
    try:
        yield
    except RuntimeError as error:
        stop.check()
        explain(error)
