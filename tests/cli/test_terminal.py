"""The program on a real terminal: what is drawn while it runs, and that the terminal is left as it was."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COLUMNS = 40


class Terminal:
    """A program whose stderr is a terminal of 40 columns; stdout is a pipe."""

    def __init__(self, arguments: list[str], folder: Path, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, COLUMNS))
        keep = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "COLUMNS")}
        self.program = subprocess.Popen(
            [sys.executable, "-m", "compress.cli", *arguments],
            cwd=folder,
            env={**keep, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        self.shown = ""

    def read(self, until: str | None = None, seconds: float = 120) -> str:
        """What has been shown by the time that `until` is, or the program has ended."""
        end = time.monotonic() + seconds
        while until is None or until not in self.shown:
            assert time.monotonic() < end, self.shown
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                break
            self.shown += piece.decode("utf-8", errors="ignore")
        return self.shown

    def close(self) -> None:
        self.program.kill()
        self.program.communicate()
        os.close(self._ours)


@contextmanager
def terminal(arguments: list[str], folder: Path, **variables: str) -> Iterator[Terminal]:
    found = Terminal(arguments, folder, **variables)
    try:
        yield found
    finally:
        found.close()


def visible(text: str) -> list[str]:
    """The lines that were shown one after the other, without what moves the cursor or colours."""
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", text).replace("\r", "\n").split("\n")


def cursor(text: str) -> list[str]:
    return ["hidden" if sign == "l" else "shown" for sign in re.findall(r"\x1b\[\?25([hl])", text)]


@pytest.mark.extended
def test_a_run_is_drawn_within_the_terminal(recipe: Path, trained: Path, tmp_path: Path) -> None:
    arguments = ["apply", str(recipe), str(trained), "-o", "out", "--set", "stages.0.retrain.epochs=60"]
    with terminal(arguments, tmp_path) as run:
        text = run.read()
        assert run.program.wait(30) == 0
    lines = visible(text)
    assert any(re.search(r"━  epoch \d+ of 60", line) for line in lines)
    assert any("loss 0." in line for line in lines)
    assert "stage 1 of 1, latent: training" in lines
    drawn = [line for line in lines if not line.startswith(("note: ", "warning: ")) and " steps in " not in line]
    assert not [line for line in drawn if len(line) > COLUMNS]
    assert cursor(text) == ["hidden", "shown"]
    assert re.search(r"\x1b\[38;5;\d+m|\x1b\[3[0-7]m", text), "in colour"


@pytest.mark.extended
def test_a_ci_job_gets_plain_lines(recipe: Path, tmp_path: Path) -> None:
    """Though its log may be a terminal."""
    with terminal(["train", str(recipe), "-o", "model.pt"], tmp_path, CI="true") as run:
        text = run.read()
        assert run.program.wait(30) == 0
    assert not cursor(text)
    first, second, *_ = text.replace("\r\n", "\n").splitlines()
    assert first == "train tiny: training, 4 epochs, 20 steps"
    assert second.startswith("train tiny: 4 epochs, 20 steps in ")


@pytest.mark.extended
def test_ctrl_c_gives_the_cursor_back(recipe: Path, tmp_path: Path) -> None:
    with terminal(["train", str(recipe), "-o", "model.pt", "--set", "train.epochs=1000000"], tmp_path) as run:
        run.read(until=" left")
        run.program.send_signal(signal.SIGINT)
        text = run.read()
        assert run.program.wait(30) == 130
    assert cursor(text) == ["hidden", "shown"]
    assert "interrupted: no results were written" in visible(text)
    assert "Traceback" not in text


@pytest.mark.extended
def test_an_error_comes_after_the_drawing(recipe: Path, tmp_path: Path) -> None:
    """A name with brackets is a name, and no markup."""
    changes = ["--set", "data={npz: 'no [red]such[/red] file.npz'}"]
    with terminal(["train", str(recipe), "-o", "model.pt", *changes], tmp_path) as run:
        text = run.read()
        assert run.program.wait(30) == 2
    assert cursor(text) == ["hidden", "shown"]
    assert "error: no [red]such[/red] file.npz" in " ".join("".join(visible(text)).split())
