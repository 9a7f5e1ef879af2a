import math
import re
import time
from contextlib import nullcontext
from io import StringIO
from typing import NamedTuple

import pytest
from rich.console import Console

from compress.report import progress
from compress.report.progress import Display, is_watched


class Time:
    """A clock that stands still until it is told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(progress, "time", found)
    return found


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that can do everything, whatever the tests are run in."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


class Moment(NamedTuple):
    step: int
    loss: float
    factor: float | None = None
    share: float | None = None


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def console(width: int = 100, *, terminal: bool = True) -> Console:
    return Console(file=Terminal() if terminal else StringIO(), width=width, highlight=False)


def shown(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def frames(text: str) -> list[str]:
    """What was drawn, without colours; the moves of the cursor that wipe a drawing part them."""
    return [re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", frame) for frame in re.split(r"\r(?:\x1b\[(?:2K|1A))+", text)]


def run(display: Display, clock: Time, *, seconds: float = 1.0, epochs: int = 3, epoch: int = 10) -> None:
    """A run of one stage, whose steps take `seconds`, with the decaying mask of a soft removal."""
    with display:
        display.phase("data")
        display.phase("selection")
        display.begin("stage_1", "stage 1 of 1, [latent]")
        display.phase("selection")
        with display.training(epochs * epoch, epoch) as on_step:
            display.phase("training")
            for step in range(1, epochs * epoch + 1):
                clock.now += seconds
                on_step(Moment(step, 0.5, 1 / step, 1.0))
        display.begin("slim", "slim network")
        for name in ("slim", "other", "evaluation", "export", "benchmark"):
            display.phase(name)


# --- where nobody draws ---


def test_plain_lines_are_few_and_in_order(clock: Time) -> None:
    log = console(terminal=False)
    run(Display(log), clock, seconds=4.0)
    assert shown(log).splitlines() == [
        "stage 1 of 1, [latent]: selecting",
        "stage 1 of 1, [latent]: training, 3 epochs, 30 steps",
        "stage 1 of 1, [latent]: epoch 2 of 3, 1:20 left, loss 0.5, mask 0.1",
        "stage 1 of 1, [latent]: epoch 3 of 3, 40 s left, loss 0.5, mask 0.05",
        "stage 1 of 1, [latent]: 3 epochs, 30 steps in 2:00, loss 0.5",
        "slim network: slimming",
        "slim network: exporting",
        "slim network: timing",
    ]


def test_an_epoch_has_a_line_only_after_a_while(clock: Time) -> None:
    log = console(terminal=False)
    run(Display(log), clock, seconds=1.0, epochs=100)
    said = [line for line in shown(log).splitlines() if "left" in line]
    assert len(said) == 99 // 3  # epochs of 10 s, and no two lines within 30 s
    assert said[0].startswith("stage 1 of 1, [latent]: epoch 4 of 100, 16:")


def test_quiet_is_silent_wherever_it_is(clock: Time) -> None:
    for terminal in (True, False):
        quiet = console(terminal=terminal)
        run(Display(quiet, quiet=True), clock)
        assert shown(quiet) == ""


def test_a_training_that_fails_has_no_closing_line(clock: Time) -> None:
    log = console(terminal=False)
    with pytest.raises(RuntimeError), Display(log) as display, display.training(10, 5):
        raise RuntimeError
    assert len(shown(log).splitlines()) == 1


# --- where it is drawn ---


def test_a_drawing_says_part_epoch_time_loss_and_mask(clock: Time) -> None:
    loud = console()
    run(Display(loud), clock)
    found = "\n".join(frames(shown(loud)))
    for text in (
        "loading data",
        "checking",  # the choices that are tried before the first stage
        "stage 1 of 1, [latent]: selecting",
        "stage 1 of 1, [latent]: training",
        "epoch 3 of 3  10 s left  loss 0.5  mask 0.05",
        "stage 1 of 1, [latent]: 3 epochs, 30 steps in 30 s, loss 0.5",
        "slim network: timing",
    ):
        assert text in found


@pytest.mark.parametrize("width", [20, 40, 60, 100])
def test_no_line_is_wider_than_the_terminal(clock: Time, width: int) -> None:
    loud = console(width)
    run(Display(loud), clock)
    drawn = [line for frame in frames(shown(loud)) for line in frame.splitlines() if "steps" not in line]
    assert max(len(line.rstrip()) for line in drawn) <= width
    bars = [line for line in drawn if "epoch" in line and line.startswith("━")]
    assert bars
    assert ("loss" in bars[-1]) == (width >= 60), "on a narrow terminal, what does not fit has a line of its own"
    assert any("loss 0.5" in line for line in drawn)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_cursor_comes_back(clock: Time, error: type[BaseException] | None) -> None:
    loud = console()
    ends = nullcontext() if error is None else pytest.raises(error)
    with ends, Display(loud) as display, display.training(10, 5) as on_step:
        clock.now += 1
        on_step(Moment(1, 0.5))
        if error is not None:
            raise error
    assert re.findall(r"\x1b\[\?25[hl]", shown(loud)) == ["\x1b[?25l", "\x1b[?25h"]


def test_it_is_drawn_a_few_times_a_second(clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(progress.Live, "refresh", lambda self: drawn.append(clock.now))
    with Display(console()) as display, display.training(3000, 300) as on_step:
        for step in range(1, 3001):
            clock.now += 0.001
            on_step(Moment(step, 0.5))
    assert 12 <= len(drawn) <= 16


def test_a_step_costs_microseconds() -> None:
    """A step of the smallest network takes hundreds of them."""
    with Display(console()) as display, display.training(10**9, 300) as on_step:
        now, best = Moment(7, 0.5, 0.9, 1.0), math.inf
        for _ in range(5):
            started = time.process_time()
            for _ in range(2000):
                on_step(now)
            best = min(best, (time.process_time() - started) / 2000)
    assert best < 20e-6


def test_the_loss_is_smoothed(clock: Time) -> None:
    """The mean of all steps at first; later on, one odd step hardly shows."""
    running = progress._Training(1000, 100)
    for step, loss in enumerate([1.0, 2.0, 3.0, 6.0], start=1):
        running.take(Moment(step, loss))
    assert running.loss == pytest.approx(3.0)
    for step in range(5, 900):
        running.take(Moment(step, 1.0))
    running.take(Moment(900, 2.0))
    assert running.loss == pytest.approx(1.02, abs=1e-3)


def test_the_first_step_does_not_count_for_the_time_left(clock: Time) -> None:
    running = progress._Training(101, 101)
    clock.now += 30  # torch loads something
    running.take(Moment(1, 1.0))
    assert running.pieces() == ["epoch 1 of 1", "loss 1"]
    clock.now += 1
    running.take(Moment(2, 1.0, None, 0.256))
    assert running.pieces() == ["epoch 1 of 1", "1:39 left", "loss 1", "26% chosen"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1:00"), (185, "3:05"), (3723, "1:02:03")],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text


# --- what is a terminal ---


@pytest.mark.parametrize(
    ("name", "value", "watched"),
    [
        ("CI", "true", False),
        ("CI", "1", False),
        ("CI", "false", True),
        ("TERM", "dumb", False),
        ("NO_COLOR", "1", True),
    ],
)
def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, name: str, value: str, watched: bool) -> None:
    assert is_watched(console())
    monkeypatch.setenv(name, value)
    assert is_watched(console()) is watched


def test_a_file_is_no_terminal_whatever_it_is_forced_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert console(terminal=False).is_terminal
    assert not is_watched(console(terminal=False))


def test_without_colour_it_draws_without_colour(clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = re.compile(r"\x1b\[[\d;]*m")
    run(Display(coloured := console()), clock)
    monkeypatch.setenv("NO_COLOR", "1")
    run(Display(plain := console()), clock)
    assert any(re.search(r"3[1-7]|38", found) for found in colours.findall(shown(coloured)))
    assert not any(re.search(r"3[1-7]|38", found) for found in colours.findall(shown(plain)))
    assert "epoch 3 of 3" in shown(plain)


# --- the bar of a sweep ---


class Sweeping(NamedTuple):
    done: int
    total: int
    seconds_left: float | None
    title: str


def test_a_sweep_in_a_log_has_a_line_now_and_then(clock: Time) -> None:
    log = console(terminal=False)
    with progress.sweep_bar(log, "tuning") as on_progress:
        for done in range(1, 11):
            clock.now += 12
            on_progress(Sweeping(done, 10, 12.0 * (10 - done), "soft [90%]"))
    assert shown(log).splitlines()[0] == "tuning: 3 of 10, 1.4 min left; last soft [90%]"
    assert len(shown(log).splitlines()) == 3
