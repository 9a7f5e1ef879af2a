"""The command that looks ahead: plan."""

import shlex
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from compress.cli.options import (
    DataOption,
    DebugOption,
    DeviceOption,
    JsonOption,
    RecipeArgument,
    SeedOption,
    SetOption,
    load,
)
from compress.cli.voices import STARTED, note, print_json, reporting, say, show


def plan(
    recipe: RecipeArgument,
    model: Annotated[
        Path | None,
        typer.Argument(help="Weights: a state_dict as .pt or .pth, or a .safetensors file; untrained if absent."),
    ] = None,
    changes: SetOption = None,
    data_root: DataOption = Path("data"),
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """What apply would do, and how long it would take, without doing it: compress plan mnist_ae model.pt"""
    with reporting(debug, interrupted="interrupted") as warned:
        loaded = load(recipe, changes, seed)
        from compress.recipe import loading, planning, running
        from compress.recipe.clock import Clock
        from compress.recipe.setting import no_bar
        from compress.report import plans

        with redirect_stdout(sys.stderr):  # what a factory of the user's prints is no result
            setting = running.prepare(loaded, data_root, device, no_bar, Clock(STARTED, "imports"))
            place = partial(loading.place, recipe, changes or ())
            found = planning.plan(loaded, model, setting, warned=warned, place=place)
        found["next"] = _next(recipe, model, changes, data_root, seed)
        if as_json:
            print_json(found)
        else:
            note(found["data"])
            show(plans.matched(found))
            show(plans.sizes(found))
            for line in plans.lines(found):
                say(line)
            say(f"next: {found['next']}")


def _next(recipe: str, model: Path | None, changes: list[str] | None, data_root: Path, seed: int | None) -> str:
    """The command that does what was planned, or makes the network that was missing."""
    words = ["compress", *(["apply", recipe, str(model)] if model else ["train", recipe, "-o", "model.pt"])]
    words += [word for change in changes or () for word in ("--set", change)]
    words += [] if data_root == Path("data") else ["--data-root", str(data_root)]
    words += [] if seed is None else ["--seed", str(seed)]
    return shlex.join(words)
