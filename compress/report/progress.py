"""A progress bar with loss, speed and time left, on stderr; silent where stderr is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

OnStep = Callable[[int, float], None]


@contextmanager
def training_bar(console: Console, title: str, steps: int) -> Iterator[OnStep]:
    """A bar for `steps` training steps; call what it yields with (steps done, loss)."""
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

        def on_step(done: int, loss: float) -> None:
            nonlocal shown
            now = time.monotonic()
            # Drawing costs more than a small network's step: a few times a second is enough for people.
            if now - shown > 0.2 or done == steps:
                shown = now
                bar.update(task, completed=done, loss=loss, speed=done / max(now - started, 1e-9))

        yield on_step
