"""The boundary to other libraries: their errors become ours, and what cannot be bounded runs in a child with limits."""

import os
import sys
import time
from typing import Any

import pytest
import torch

from compress.errors import CheckpointError, InputError, TargetError
from compress.files import foreign
from compress.files.foreign import ROOM, SECONDS, SPEED, TIMES, allowed, confined, reading, reason

forks = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits the memory of a process")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "SECONDS", 1.0)
    monkeypatch.setattr(foreign, "ROOM", 2**27)


def test_a_file_may_take_in_proportion() -> None:
    assert allowed(0) == (ROOM, SECONDS)
    assert allowed(5 * SPEED) == (ROOM + TIMES * 5 * SPEED, SECONDS + 5)


@forks
def test_a_result_comes_back_and_nothing_else_changes() -> None:
    seen: list[int] = []

    def work() -> dict[str, Any]:
        seen.append(1)
        return {"sum": int(torch.ones(3).sum()), "\udc80": None}

    assert confined(work, InputError, "x", 0) == {"sum": 3, "\udc80": None}
    assert seen == []


def endless() -> None:
    while True:
        time.sleep(0.01)


def hungry() -> None:
    held = []
    while True:
        held.append(bytearray(b"x") * 2**24)


@forks
@pytest.mark.parametrize(
    ("work", "text"),
    [
        (endless, r"^w\.pt cannot be read: it took longer than 1 s, for a file of 7 bytes$"),
        (hungry, r"^w\.pt cannot be read: MemoryError$"),
        (lambda: torch.ones(2**40), r"^w\.pt cannot be read: .*memory"),
        (lambda: os.kill(os.getpid(), 11), r"^w\.pt cannot be read: its process met SIGSEGV; it had [\d,]+ bytes"),
        (lambda: os._exit(3), r"^w\.pt cannot be read: its process met its end"),
        (lambda: sys.exit(3), r"^w\.pt cannot be read: its process met its end"),
        (lambda: {}["key"], r"^w\.pt cannot be read: 'key'$"),
    ],
    ids=["endless", "hungry", "tensor", "crash", "exit", "sys.exit", "error"],
)
@pytest.mark.usefixtures("short")
def test_every_other_end_is_an_error(work: Any, text: str) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=text):
        confined(work, CheckpointError, "w.pt cannot be read", 7)
    assert time.monotonic() - started < 60


@forks
def test_an_error_of_this_package_keeps_its_kind() -> None:
    def work() -> None:
        raise TargetError("no layer x")

    with pytest.raises(TargetError, match=r"^no layer x$"):
        confined(work, CheckpointError, "w.pt", 0)


@forks
def test_nothing_that_a_child_prints_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        sys.stdout.write("\x1b[2J")
        os.write(1, b"\x1b]0;owned\x07")
        return os.write(2, b"\x1b]0;owned\x07")

    assert confined(work, InputError, "x", 0) == 10
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("one\ntwo"), "one two"),
        (MemoryError(), "MemoryError"),
        (
            RuntimeError("bad size\nException raised from f at a.cpp:3 (most recent call first):\nframe #0: f"),
            "bad size",
        ),
        (RuntimeError("no\nC++ CapturedTraceback:\n#4 f() from a.cpp:1"), "no"),
        (RuntimeError("FAIL : /src/core/graph.cc:421 void* onnx::Graph::f(size_t, bool) No model"), "FAIL : No model"),
        (ValueError("x" * 10**6), "x" * 400 + "..."),
    ],
)
def test_a_reason_is_one_short_line_without_frames(raised: Exception, told: str) -> None:
    found = reason(raised)
    assert found.startswith(told)
    assert "\n" not in found
    assert ".cc" not in found
    assert ".cpp" not in found


@pytest.mark.parametrize("raised", [KeyError("x"), RecursionError(), MemoryError(), AssertionError("y")])
def test_whatever_a_library_raises_is_the_readers_error(raised: Exception) -> None:
    with pytest.raises(CheckpointError, match=r"^w\.pt is damaged: ."), reading(CheckpointError, "w.pt is damaged"):
        raise raised
