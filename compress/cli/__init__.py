"""The command line: parse, call, print. Nothing heavy is imported before a command runs."""

import gc
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Annotated

import typer

from compress import __version__
from compress.cli import exploring, files, planning, quantizing, run, sweeps
from compress.cli.console import say
from compress.cli.ending import end_at_once

app = typer.Typer(
    name="compress",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a trained PyTorch network smaller: select weights or nodes, let them decay while the rest trains, cut "
    "them out, prove that the result computes the same, and time it. Try: compress demo",
)

COMMANDS: tuple[Callable[..., None], ...] = (
    run.train,
    planning.plan,
    run.apply,
    files.export,
    quantizing.quantize,
    files.bench,
    files.report,
    files.inspect,
    files.recipes,
    run.demo,
    sweeps.reproduce,
    sweeps.compare,
    exploring.sensitivity,
    exploring.search,
)
"""In the order of `compress --help`."""

for command in COMMANDS:
    app.command()(command)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show:
        say(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of `compress` and `softprune`: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted."""
    # Importing torch and tracing networks create a million permanent objects. Searching them for garbage repeatedly
    # takes a tenth of a short run, and once more at the end, where they are freed anyway, a second.
    gc.set_threshold(50_000, 20, 50)
    # A path or a character outside the terminal's encoding is written out, as on stderr, instead of a crash.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        end_at_once(app)
    try:
        app()
    finally:
        # triton 3.9, which torch 2.15 installs, reports each object left at the end on stderr (through nanobind).
        compiler = getattr(sys.modules.get("triton._C.libtriton"), "ir", None)
        if type(getattr(compiler, "location", None)).__module__ != "nanobind":
            gc.freeze()
