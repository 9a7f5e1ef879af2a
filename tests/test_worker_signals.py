"""Workers end with their process and by its word, whoever else signals them; here each is a real one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says who has sent a signal")

PARENT = """
import multiprocessing, os, signal, sys
from multiprocessing import resource_tracker
from compress import worker_signals

def work(pipe, parent):
    for number in (signal.SIGINT, signal.SIGTERM):  # while it is starting
        os.kill(os.getpid(), number)
    worker_signals.obey(parent)
    pipe.send(os.getpid())
    while True:
        pipe.send(pipe.recv())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    ours, theirs = context.Pipe()
    worker = context.Process(target=work, args=(theirs, os.getpid()), daemon=True)
    resource_tracker.ensure_running()
    with worker_signals.starting():
        worker.start()
    theirs.close()
    print(ours.recv(), flush=True)
    for line in sys.stdin:
        if line == "end\\n":
            worker.terminate()
            worker.join()
            print(worker.exitcode, flush=True)
        else:
            ours.send(line)
            print(ours.recv(), end="", flush=True)
"""


class Parent:
    """A process with a worker, which says what the worker answers."""

    def __init__(self, script: Path, method: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, str(script), method], stdin=pipe, stdout=pipe, text=True)
        self.worker = int(self.said())

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def asked(self, line: str) -> str:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self.said()


@pytest.fixture(params=["fork", "spawn"])
def parent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Parent]:
    (tmp_path / "parent.py").write_text(PARENT, encoding="utf-8")
    found = Parent(tmp_path / "parent.py", request.param)
    yield found
    found.process.kill()
    found.process.communicate()
    wait_for_the_end(found.worker)


def wait_for_the_end(process: int) -> None:
    """A test that fails here has left a worker behind."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # of which only nobody has taken note yet
            return
        time.sleep(0.02)
    raise AssertionError(f"{process} goes on without its parent")


def wait_until_taken(number: int, process: int) -> None:
    """While a signal is pending, another of the same number is lost, whoever sends it."""
    until = time.monotonic() + 60
    pending = 1
    while pending and time.monotonic() < until:
        (line,) = re.findall(r"ShdPnd:\s*(\w+)", Path(f"/proc/{process}/status").read_text(encoding="utf-8"))
        pending = int(line, 16) >> (number - 1) & 1
    assert not pending


def test_a_worker_ends_by_the_word_of_its_parent_alone(parent: Parent) -> None:
    """That it ends where its parent is killed is what the fixture sees to."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(parent.worker, number)
        assert parent.asked(f"still there after {number}") == f"still there after {number}"
        wait_until_taken(signal.SIGTERM, parent.worker)
    assert parent.asked("end") == "0"


def test_a_worker_ends_with_its_parent(parent: Parent) -> None:
    parent.process.kill()
    wait_for_the_end(parent.worker)
