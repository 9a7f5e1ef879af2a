"""The command `plan`."""

import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from compress.cli.console import STARTED, note, print_json, reporting, say, show
from compress.cli.next_steps import after_plan, repeated
from compress.cli.options import (
    DataOption,
    DebugOption,
    DeviceOption,
    ExpectOption,
    JsonOption,
    RecipeArgument,
    SeedOption,
    SetOption,
    expecting,
    load,
)


def plan(
    recipe: RecipeArgument,
    model: Annotated[
        Path | None,
        typer.Argument(help="Weights: a state_dict as .pt or .pth, or a .safetensors file; untrained if absent."),
    ] = None,
    changes: SetOption = None,
    expect: ExpectOption = None,
    data_root: DataOption = Path("data"),
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what apply would do and how long it would take.

    Example: compress plan mnist_ae model.pt
    """
    with reporting(debug, interrupted="interrupted") as warned:
        changes = expecting(changes, expect)
        loaded = load(recipe, changes, seed)
        from compress.run.inputs import making, require_model

        if model is not None:
            require_model(model, making(model, loaded, recipe, changes or ()))
        # Imported after these checks, since torch is slow to import.
        from compress.recipe import loading
        from compress.report import plans
        from compress.run import apply, plan
        from compress.run.clock import Clock
        from compress.run.setting import unwatched

        with redirect_stdout(sys.stderr):  # output of the user's factories is not a result
            setting = apply.prepare(loaded, data_root, device, unwatched, Clock(STARTED, "imports"))
            place = partial(loading.place, recipe, changes or ())
            found = plan.plan(loaded, model, setting, warned=warned, place=place)
        if as_json:
            print_json(found)
        else:
            note(found["data"])
            show(plans.matched(found))
            show(plans.sizes(found))
            for line in plans.lines(found):
                say(line)
            common = repeated(changes, seed, device, data_root)
            say(after_plan(recipe, model, loaded.name, common, trains=loaded.train is not None))
