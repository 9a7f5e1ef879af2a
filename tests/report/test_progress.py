from io import StringIO
from typing import NamedTuple

import pytest
from rich.console import Console

from compress.report import progress


class Time:
    """A clock that stands still until it is told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Moment(NamedTuple):
    step: int
    loss: float
    factor: float | None = None
    share: float | None = None


def console(terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=100, color_system=None)


def shown(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_silent_where_nobody_watches() -> None:
    quiet = console(terminal=False)
    with progress.training_bar(quiet, "stage 1", 10) as on_step:
        for step in range(1, 11):
            on_step(Moment(step, 0.5))
    assert shown(quiet) == ""


def test_on_a_terminal_it_ends_with_all_steps_and_the_last_loss() -> None:
    loud = console(terminal=True)
    with progress.training_bar(loud, "stage 1: [latent]", 10) as on_step:
        for step in range(1, 11):
            on_step(Moment(step, 1 / step))
    assert "10/10" in shown(loud)
    assert "loss 0.1 " in shown(loud)
    assert "steps/s" in shown(loud)
    assert "stage 1: [latent]" in shown(loud)


def test_speed_is_steps_by_seconds_and_drawing_is_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, updates = Time(), []
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress.Progress, "update", lambda self, task, **fields: updates.append(fields))
    with progress.training_bar(console(terminal=False), "train", 300) as on_step:
        for step in range(1, 301):
            clock.now += 0.01
            on_step(Moment(step, 0.5))
    assert 12 <= len(updates) <= 16
    assert updates[-1] == {"completed": 300, "loss": 0.5, "speed": pytest.approx(100)}


def test_the_first_step_may_be_faster_than_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "time", Time())
    with progress.training_bar(console(terminal=False), "train", 1) as on_step:
        on_step(Moment(1, 0.5))
