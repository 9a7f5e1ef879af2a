"""The progress of a run on stderr: a live display on a terminal, a few plain lines elsewhere."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from compress.report.visible import visible
from compress.wording import count_of

DRAW = 0.2
"""Seconds between two drawings. Each takes some tenths of a millisecond, like a step of a small network."""

SPEAK = 30.0
"""Seconds between two plain lines about the same training."""

WORDS: Mapping[str, str] = {
    "data": "loading data",
    "load": "checking",
    "selection": "selecting",
    "training": "training",
    "evaluation": "evaluating",
    "slim": "slimming",
    "export": "exporting",
    "quantize": "quantizing",
    "sparse": "making layers sparse",
    "memory": "measuring memory",
    "benchmark": "timing",
}
"""The displayed words for the phases of a run's clock; the other phases are too short to show."""


class Moment(Protocol):
    """The progress after a training step.

    step: the number of the step, from 1.
    factor: the factor of all pruned entries, if they share one.
    share: the share of the final set that has been chosen, in [0, 1]; None if nothing is pruned.
    """

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def factor(self) -> float | None: ...
    @property
    def share(self) -> float | None: ...


OnStep = Callable[[Moment], None]


def is_watched(console: Console) -> bool:
    """Whether drawings can be overwritten: on a capable terminal, and not in the log of a CI job."""
    # FORCE_COLOR makes rich treat a file as a terminal.
    return console.is_interactive and console.file.isatty() and os.environ.get("CI", "").lower() in ("", "0", "false")


class Display:
    """Shows what a run is doing: its part, the epoch, the time left, the loss and the state of the mask.

    It does not use a thread: the run itself draws it, and never while something is being timed.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._title, self._word, self._said = "", "", ""
        self._running: _Training | None = None
        self._live: Live | None = None
        if is_watched(console) and not quiet:
            self._live = Live(console=console, get_renderable=self._drawn, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start(refresh=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, part: str, title: str) -> None:
        """A part of the run begins; `title` is for people."""
        self._title, self._word = title, ""

    def phase(self, name: str) -> None:
        """A phase begins, by its name in the run's clock."""
        if name not in WORDS:
            return
        # Before the first part begins, selections are only rehearsed.
        self._word = WORDS[name] if self._title or name != "selection" else WORDS["load"]
        self._draw()
        # Trainings and their evaluations have their own lines.
        if self._live is None and self._running is None and self._title and name != "evaluation":
            self._say_once(f"{self._title}: {self._word}")

    @contextmanager
    def training(self, steps: int, epoch: int) -> Iterator[OnStep]:
        """A training of `steps` steps, `epoch` of them in an epoch; call the yielded function after each."""
        running = self._running = _Training(steps, epoch)
        if self._live is None:
            self._say_once(f"{self._title}: training, {running.size}")
        shown = said = running.started

        def on_step(now: Moment) -> None:
            nonlocal shown, said
            running.take(now)
            seconds = time.monotonic()
            if seconds - shown > DRAW:
                shown = seconds
                self._draw()
            if self._live is None and now.step % epoch == 0 and now.step < steps and seconds - said >= SPEAK:
                said = seconds
                self._say(f"{self._title}: {', '.join(running.pieces())}")

        try:
            yield on_step
            self._say(f"{self._title}: {running.size} in {_duration(running.seconds)}, loss {running.loss:.4g}")
        finally:
            self._running = None

    def measured(self, when: str, metric: Mapping[str, float], step: int) -> None:
        """Figures are shown in the tables at the end."""

    def _draw(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _drawn(self) -> RenderableType:
        title = ": ".join(filter(None, [self._title, self._word]))
        return _Drawing(title, self._running)

    def _say_once(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._say(line)

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(Text(visible(line)))


class _Training:
    """The progress of a training, its smoothed loss, and the time left at its present speed."""

    def __init__(self, steps: int, epoch: int) -> None:
        self.steps, self.epoch = steps, epoch
        self.step, self.seen, self.loss = 0, 0, 0.0  # `seen` excludes steps from before a resume
        self.started = self._warm = time.monotonic()
        self._latest: Moment | None = None

    def take(self, now: Moment) -> None:
        # At first the mean of all steps, later of about the last fifty.
        self.seen += 1
        self.loss += (now.loss - self.loss) * max(1 / self.seen, 0.02)
        self.step, self._latest = now.step, now
        if self.seen == 1:
            self._warm = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def size(self) -> str:
        epochs = self.steps / self.epoch
        return f"{count_of(epochs, 'epoch')}, {count_of(self.steps, 'step')}"

    def pieces(self) -> list[str]:
        """Epoch, time left, loss, and the progress of pruning; the most important first."""
        now = self._latest
        epochs = -(-self.steps // self.epoch)
        found = [f"epoch {min(self.step // self.epoch + 1, epochs)} of {epochs}"]
        if now is None:
            return found
        if self.seen > 1:  # the first step may take seconds, while torch loads libraries
            left = (time.monotonic() - self._warm) / (self.seen - 1) * (self.steps - self.step)
            found.append(f"{_duration(left)} left")
        found.append(f"loss {self.loss:.4g}")
        if now.share is not None and now.share < 1:
            found.append(f"{now.share:.0%} chosen")
        if now.factor is not None:
            found.append(f"mask {now.factor:.3g}")
        return found


class _Drawing:
    """The title; below it the bar with details beside it or, on a narrow terminal, in another line."""

    def __init__(self, title: str, training: _Training | None) -> None:
        self._title, self._training = title, training

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(visible(self._title), no_wrap=True, overflow="crop")
        if self._training is None:
            return
        first = self._training.pieces()
        rest: list[str] = []
        while len(first) > 1 and len("  ".join(first)) > options.max_width - 16:
            rest.insert(0, first.pop())
        beside = Text("  ".join(first), no_wrap=True, overflow="crop")
        width = max(4, min(40, options.max_width - len(beside) - 2))
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(ProgressBar(self._training.steps, self._training.step, width=width), beside)
        yield line
        if rest:
            yield Text("  ".join(rest), no_wrap=True, overflow="crop")


def _duration(seconds: float) -> str:
    """A duration for people: 0.4 s, 12 s, 3:05, 1:02:03."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Sweeping(Protocol):
    """The progress of a sweep: jobs done, all jobs, seconds left if known, and the job that ended last."""

    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def seconds_left(self) -> float | None: ...
    @property
    def title(self) -> str: ...


@contextmanager
def sweep_bar(console: Console, title: str, *, quiet: bool = False) -> Iterator[Callable[[Sweeping], None]]:
    """A bar for the jobs of a sweep, with the time left; occasional lines if stderr is not a terminal.

    Args:
        quiet: show neither.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[last]}", markup=False),
    )
    watched = is_watched(console) and not quiet
    with Progress(*columns, console=console, disable=not watched) as bar:
        task = bar.add_task(title, total=None, left="", last="")
        shown = time.monotonic()

        def on_progress(now: Sweeping) -> None:
            nonlocal shown
            left = "" if now.seconds_left is None else f"{now.seconds_left / 60:.1f} min left"
            bar.update(task, completed=now.done, total=now.total, left=left, last=now.title)
            if not (watched or quiet) and time.monotonic() - shown > SPEAK:
                shown = time.monotonic()
                console.print(f"{title}: {now.done} of {now.total}, {left}; last {now.title}", markup=False)

        yield on_progress
