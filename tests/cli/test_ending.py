"""A process that torchrun has started ends without the interpreter's end, and with everything written."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds abort() in the running program")

COMMAND = """
import atexit, ctypes, sys
import compress.cli

# as a thread of gloo may abort it
ctypes.pythonapi.Py_AtExit(ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p))
atexit.register(print, "at exit")
sys.argv = ["compress", *sys.argv[1:]]
compress.cli.main()
"""
FAILING = """
import os, sys
from compress.cli.ending import end_at_once
def command():
    sys.stdout.write("half a line")
    raise {error}
end_at_once(command)
"""


def ended(*words: str, processes: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WORLD_SIZE": str(processes), "RANK": "0"}
    return subprocess.run([sys.executable, "-c", *words], capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.parametrize(("words", "code"), [(("recipes", "mnist_ae"), 0), (("recipes", "mnist_a"), 2)])
def test_nothing_runs_after_the_command_and_its_exit_handlers(words: tuple[str, ...], code: int) -> None:
    alone, beside = (ended(COMMAND, *words, processes=number) for number in (1, 2))
    assert alone.returncode < 0  # a signal: the interpreter's end comes to `abort`
    assert beside.returncode == code, beside.stderr
    assert beside.stdout.endswith("at exit\n")
    assert (code == 0) == ("name: mnist_ae" in beside.stdout)
    assert (code == 2) == ("did you mean mnist_ae?" in beside.stderr)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        ("SystemExit", 0, ""),
        ("SystemExit(7)", 7, ""),
        ("SystemExit('out of order')", 1, "out of order\n"),
        ("ValueError('unforeseen')", 1, "ValueError: unforeseen\n"),
        ("KeyboardInterrupt", 1, "KeyboardInterrupt\n"),
    ],
)
def test_the_exit_code_is_that_of_the_command(error: str, code: int, told: str) -> None:
    done = ended(FAILING.format(error=error), processes=2)
    assert (done.returncode, done.stdout) == (code, "half a line")
    assert done.stderr.endswith(told)
    assert bool(done.stderr) == bool(told)
