"""How a process ends that torchrun has started beside others."""

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def end_at_once(command: Callable[[], object]) -> NoReturn:
    """Run a command and end the process with its exit code, without the interpreter's own end.

    A thread of gloo frees the tensors of a collective, for which it waits for the interpreter. One that waits while the
    interpreter ends is itself ended by Python 3.11 to 3.13, within a C++ destructor: the process aborts (SIGABRT,
    "terminate called without an active exception"), torchrun ends the others, and a run that had succeeded is lost.
    `compress.train.ranks.joined` ends these threads, unless other code still holds the group.
    """
    code = _exit_code(command)
    atexit._run_exitfuncs()  # also ends logging, and processes that load data
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it any more: the code is that of the interpreter's own end
            code = code or 120
    os._exit(code)


def _exit_code(command: Callable[[], object]) -> int:
    """The exit code of the interpreter after a command; an unexpected error is printed."""
    try:
        command()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)  # noqa: T201
    except BaseException:
        sys.excepthook(*sys.exc_info())
    else:
        return 0
    return 1
