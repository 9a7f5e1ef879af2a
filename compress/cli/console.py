"""The output of every command: results on stdout, everything else on stderr; errors with their exit code."""

import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from compress.errors import CompressError, InputError, ProofError, TrainingError
from compress.report.visible import visible
from compress.run.interruption import Stop
from compress.run_warnings import entry
from compress.wording import because

if TYPE_CHECKING:
    from rich.table import Table

    from compress.results import UsedData, Warned
    from compress.run.setting import Watcher

STARTED = time.perf_counter()
"""When the program began, approximately."""

FIRST = os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
"""Whether this process prints: of several started by torchrun, only the first does."""


@cache
def people() -> Console:
    """The console for everything but results. There is only one, so that messages appear above a live display."""
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=not FIRST)


def tell(line: str) -> None:
    people().print(Text(visible(line)))


def say(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(Text(visible(line)))


def note(data: "UsedData") -> None:
    """Print the note on the data, if there is one."""
    if "note" in data:
        people().print(Text.assemble(("note: ", "yellow"), visible(data["note"])))


def show(table: "Table") -> None:
    Console().print(table)


def tell_results(table: "Table", lines: Iterable[str], out: Path, names: Iterable[str]) -> None:
    """Print the results of a sweep, and the names of its files in `out`."""
    show(table)
    for line in lines:
        say(line)
    say(f"{out}: {', '.join(names)}")


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


@contextmanager
def reporting(
    debug: bool, *, quiet: bool = False, interrupted: str = "interrupted: no results were written"
) -> Iterator[list["Warned"]]:
    """Print errors, warnings and, unless `quiet`, notes as lines on stderr, and exit with the error's code."""
    warned: list[Warned] = []
    console = people()

    def warn(message: Warning | str, *_: object, **__: object) -> None:
        found = entry(message)
        if found in warned:  # a rehearsal or a resumed run warns of the same again
            return
        warned.append(found)
        console.print(Text.assemble(("warning: ", "yellow"), visible(message)))

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = warn
        try:
            with Stop().listening(), nullcontext() if quiet else _noting():
                yield warned
        except CompressError as error:
            if debug:
                traceback.print_exception(error)
            if not FIRST and isinstance(error, ProofError | TrainingError):  # the first process may not have it
                console.quiet = False
            console.print(Text.assemble(("error: ", "bold red"), visible(error)))
            _notes(console, error)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:  # of a path that nothing has checked, such as one in a folder that may not be entered
            if error.filename is None:
                raise
            if debug:
                traceback.print_exception(error)
            console.print(Text.assemble(("error: ", "bold red"), visible(f"{error.filename}: {because(error)}")))
            raise typer.Exit(InputError.exit_code) from None
        except KeyboardInterrupt as error:
            console.print(Text(visible(interrupted)))
            _notes(console, error)
            raise typer.Exit(getattr(error, "exit_code", 130)) from None


@contextmanager
def _noting() -> Iterator[None]:
    """Print what the library logs, such as which part of a checkpoint it takes; each line once."""
    handler, log, seen = logging.Handler(logging.INFO), logging.getLogger("compress"), set[str]()

    def emit(record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in seen:
            seen.add(text)
            people().print(Text.assemble(("note: ", "yellow"), visible(text)))

    handler.emit = emit  # type: ignore[method-assign]
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def _notes(console: Console, error: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        console.print(Text(visible(note)))


@contextmanager
def watching(*, quiet: bool, log: str | None = None, name: str = "", out: Path | None = None) -> Iterator["Watcher"]:
    """The watchers of a run: the display and, if requested, a log called `name`, which may not be inside `out`.

    Output of the user's own code is not a result, and is redirected to stderr.

    Raises:
        InputError: see `compress.run.event_log.where`.
    """
    from compress.report.progress import Display
    from compress.run import event_log
    from compress.run.setting import Watchers

    found = None if log is None or not FIRST else event_log.where(log, name, out)
    with ExitStack() as stack:
        watchers: list[Watcher] = [stack.enter_context(Display(people(), quiet=quiet))]
        stack.enter_context(redirect_stdout(sys.stderr))
        if found is not None:
            watchers.append(stack.enter_context(event_log.event_log(*found)))
        yield Watchers(*watchers)
    if found is not None and not quiet:
        tell(f"log: {found[1]}")
