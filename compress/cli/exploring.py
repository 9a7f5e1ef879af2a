"""The commands that find how much can be pruned: sensitivity, search."""

import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from compress.cli.console import people, print_json, reporting, say, tell_results
from compress.cli.next_steps import after_search, repeated
from compress.cli.options import (
    DataOption,
    DebugOption,
    DeviceOption,
    EngineOption,
    ExpectOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    RecipeArgument,
    SeedOption,
    SetOption,
    WorkersOption,
    expecting,
    levels_of,
    load,
    read_by,
)
from compress.errors import NothingFoundError, NothingPrunedError
from compress.sweep.engines import Workers


def sensitivity(
    recipe: RecipeArgument,
    model: ModelArgument,
    tolerate: Annotated[
        str,
        typer.Option(
            "--tolerate", help="Allowed loss: 1.05x the dense network's, or 0.5 points (percent) of its metric."
        ),
    ] = "1.05x",
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="LIST", help="Sparsities to try: .5,.9,.95; many by default.")
    ] = None,
    stage: Annotated[int, typer.Option("--stage", min=0, help="Which stage of the recipe, from 0.")] = 0,
    changes: SetOption = None,
    expect: ExpectOption = None,
    workers: WorkersOption = 2,
    engine: EngineOption = "local",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for curves and recipe; runs/sensitivity/NAME by default."),
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Folder for finished cells.")] = Path("runs/sensitivity/cells"),
    data_root: DataOption = Path("data"),
    seed: SeedOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure how much pruning each layer tolerates without retraining, and write a recipe from it.

    Example: compress sensitivity mnist_classifier model.pt --tolerate 0.5
    """
    with reporting(debug, quiet=quiet, interrupted=f"interrupted: finished cells are kept in {cache}") as warned:
        changes = expecting(changes, expect)
        from compress.run.inputs import making, require_model
        from compress.sweep.explore import bounds

        loaded, tolerance, shares = load(recipe, changes, seed), bounds.tolerated(tolerate), levels_of(levels)
        require_model(model, making(model, loaded, recipe, changes or ()))
        # Imported after these checks, since torch is slow to import.
        from compress.report import explored
        from compress.report.progress import sweep_bar
        from compress.run import output
        from compress.sweep.explore import document
        from compress.sweep.explore import sensitivity as job

        out = out or Path("runs/sensitivity") / loaded.name
        output.require_names(out, document.FILES["sensitivity"], "sensitivity", read_by(loaded, recipe, model))
        output.require_cache(cache, out)
        with redirect_stdout(sys.stderr):  # as in `train`
            results = job.sensitivity(
                loaded,
                model,
                tolerance,
                data_root,
                cache,
                number=stage,
                shares=shares,
                workers=Workers(workers, engine),
                device=device,
                bar=partial(sweep_bar, people(), quiet=quiet),
            )
        results["warnings"] = warned
        tolerated = job.recipe_with(loaded, results)
        names = document.write_sensitivity(results, tolerated, out)
        if as_json:
            print_json(results)
        else:
            tell_results(explored.sensitivity(results), explored.of_sensitivity(results), out, names)
        if tolerated is None:
            raise NothingPrunedError(
                f"nothing can be pruned within --tolerate {tolerate} without retraining, so no recipe was written; "
                "tolerate more"
            )
        if not (as_json or quiet):
            say(after_search(out / document.RECIPE, model, loaded.name, repeated(data_root=data_root)))


def search(
    recipe: RecipeArgument,
    model: ModelArgument,
    max_loss: Annotated[
        str | None, typer.Option("--max-loss", metavar="LOSS", help="The smallest network: 1.05x, or a loss.")
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option("--max-drop", metavar="POINTS", help="The smallest network: 0.5 points of accuracy, or percent."),
    ] = None,
    max_params: Annotated[
        str | None, typer.Option("--max-params", metavar="N", help="The best network: 50000, or 0.5x.")
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option("--max-macs", metavar="N", help="The best network: 0.5x, or a number.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option("--max-latency", metavar="X", help="The best network: 0.5x, under onnxruntime.")
    ] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="The size at the bend of the loss, for one layer of nodes.")
    ] = False,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Number of trials by Optuna, instead of a bisection.")
    ] = None,
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="LIST", help="Levels to bisect over: .5,.9,.95; many by default.")
    ] = None,
    changes: SetOption = None,
    expect: ExpectOption = None,
    workers: WorkersOption = 2,
    engine: EngineOption = "local",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for front and recipe; runs/search/NAME by default.")
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Folder for finished trials.")] = Path("runs/search/cells"),
    data_root: DataOption = Path("data"),
    seed: SeedOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Find the smallest network within a loss, or the best one within a size.

    Example: compress search mnist_ae model.pt --max-loss 1.05x
    """
    with reporting(debug, quiet=quiet, interrupted=f"interrupted: finished trials are kept in {cache}") as warned:
        changes = expecting(changes, expect)
        from compress.run.inputs import making, require_model
        from compress.sweep.explore import bounds
        from compress.sweep_results import BoundKind

        given: dict[BoundKind, str | None] = {
            "loss": max_loss,
            "drop": max_drop,
            "params": max_params,
            "macs": max_macs,
            "latency": max_latency,
        }
        limits = tuple(bounds.parse(kind, text) for kind, text in given.items() if text is not None)
        loaded = load(recipe, changes, seed)
        require_model(model, making(model, loaded, recipe, changes or ()))
        goal, tried = bounds.goal_of(limits, knee=knee), levels_of(levels)
        # Imported after these checks, since torch is slow to import.
        from compress.report import explored
        from compress.report.progress import sweep_bar
        from compress.run import output
        from compress.sweep.explore import document
        from compress.sweep.explore import search as job
        from compress.sweep.explore.trials import Wanted

        out = out or Path("runs/search") / loaded.name
        output.require_names(out, document.FILES["search"], "search", read_by(loaded, recipe, model))
        output.require_cache(cache, out)
        with redirect_stdout(sys.stderr):  # as in `train`
            results = job.search(
                loaded,
                model,
                Wanted(limits, goal, trials, tried),
                data_root,
                cache,
                workers=Workers(workers, engine),
                device=device,
                bar=partial(sweep_bar, people(), quiet=quiet),
            )
        results["warnings"] = warned
        won = job.recipe_with(loaded, results)
        names = document.write_search(results, won, out)
        if as_json:
            print_json(results)
        else:
            tell_results(explored.front(results), explored.of_search(results), out, names)
        if won is None:
            raise NothingFoundError(
                f"no trial {'shows a knee' if knee else 'is within the bounds'}, so no recipe was written; "
                + ("search for a bound instead" if knee else "ask for less, or retrain for longer")
            )
        if not (as_json or quiet):
            say(after_search(out / document.RECIPE, model, loaded.name, repeated(data_root=data_root)))
