"""A progress bar with loss, speed and time left, on stderr; silent where stderr is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Moment(Protocol):
    """What is known after a training step: how many are done, and the loss of the latest."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...


OnStep = Callable[[Moment], None]


@contextmanager
def training_bar(console: Console, title: str, steps: int) -> Iterator[OnStep]:
    """A bar for `steps` training steps; call what it yields after every one."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4g}"),
        TextColumn("{task.fields[speed]:.0f} steps/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=steps, loss=float("nan"), speed=0.0)
        started = shown = time.monotonic()

        def on_step(now: Moment) -> None:
            nonlocal shown
            seconds = time.monotonic()
            # Drawing costs more than a small network's step: a few times a second is enough for people.
            if seconds - shown > 0.2 or now.step == steps:
                shown = seconds
                speed = now.step / max(seconds - started, 1e-9)
                bar.update(task, completed=now.step, loss=now.loss, speed=speed)

        yield on_step


class Sweeping(Protocol):
    """How far a sweep is: jobs done of all, seconds left if known, and the job that ended last."""

    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def seconds_left(self) -> float | None: ...
    @property
    def title(self) -> str: ...


@contextmanager
def sweep_bar(console: Console, title: str) -> Iterator[Callable[[Sweeping], None]]:
    """A bar for the jobs of a sweep, with the time left; a line now and then where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[last]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, left="", last="")
        shown = time.monotonic()

        def on_progress(now: Sweeping) -> None:
            nonlocal shown
            left = "" if now.seconds_left is None else f"{now.seconds_left / 60:.1f} min left"
            bar.update(task, completed=now.done, total=now.total, left=left, last=now.title)
            if not console.is_terminal and time.monotonic() - shown > 30:
                shown = time.monotonic()
                console.print(f"{title}: {now.done} of {now.total}, {left}; last {now.title}", markup=False)

        yield on_progress
