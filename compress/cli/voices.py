"""The two voices of every command: results on stdout, everything else on stderr; and errors with their exit code."""

import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from compress.errors import CompressError

if TYPE_CHECKING:
    from rich.table import Table

    from compress.report.progress import OnStep

STARTED = time.perf_counter()
"""When the program began, as near as it can tell."""


def people() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def tell(line: str) -> None:
    people().print(Text(line))


def say(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(Text(line))


def note(data: dict[str, Any]) -> None:
    """What a reader of the results should know about the data, if anything."""
    if "note" in data:
        people().print(Text.assemble(("note: ", "yellow"), data["note"]))


def show(table: "Table") -> None:
    Console().print(table)


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


@contextmanager
def reporting(debug: bool, interrupted: str = "interrupted: no results were written") -> Iterator[list[str]]:
    """Errors and warnings as lines on stderr, with the exit code that the error stands for."""
    warned: list[str] = []
    console = people()

    def warn(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) in warned:  # of a rehearsal, and then of the run
            return
        warned.append(str(message))
        console.print(Text.assemble(("warning: ", "yellow"), str(message)))

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = warn
        try:
            yield warned
        except CompressError as error:
            if debug:
                traceback.print_exception(error)
            console.print(Text.assemble(("error: ", "bold red"), str(error)))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            console.print(Text(interrupted))
            raise typer.Exit(130) from None


def bar() -> Callable[[str, int], AbstractContextManager["OnStep"]]:
    from compress.report.progress import training_bar

    return partial(training_bar, people())
