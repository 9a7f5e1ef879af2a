"""The commands that train: train, apply, demo."""

import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from compress.cli.options import (
    DataOption,
    DebugOption,
    DeviceOption,
    ForceOption,
    JsonOption,
    ModelArgument,
    RecipeArgument,
    SeedOption,
    SetOption,
    load,
)
from compress.cli.voices import STARTED, bar, note, print_json, reporting, say, show, tell


def train(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="The file for the trained weights.")],
    changes: SetOption = None,
    data_root: DataOption = Path("data"),
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the recipe's network from the start: compress train mnist_ae -o model.pt"""
    with reporting(debug):
        loaded = load(recipe, changes, seed)
        from compress.recipe import output, running
        from compress.recipe.clock import Clock

        output.require_file(out, force=force)
        with redirect_stdout(sys.stderr):  # what a factory of the user's prints is no result
            setting = running.prepare(loaded, data_root, device, bar(), Clock(STARTED, "imports"))
            done = running.train_dense(loaded, out, setting)
        if as_json:
            print_json(done)
        else:
            note(done["data"])
            metric = ", ".join(f"test {name} {value:.4g}" for name, value in done["metric"].items())
            say(f"{out}: {metric} after {done['steps']:,} steps in {done['seconds']:.1f} s")
            say(f"next: compress apply {recipe} {out} -o {loaded.name}")


def apply(
    recipe: RecipeArgument,
    model: ModelArgument,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The folder for the results; the recipe's name if absent.")
    ] = None,
    changes: SetOption = None,
    data_root: DataOption = Path("data"),
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Prune, retrain, slim, prove, export and time: compress apply mnist_ae model.pt"""
    with reporting(debug) as warned:
        loaded = load(recipe, changes, seed)
        from compress.recipe import loading, output, running
        from compress.recipe.clock import Clock

        out = out or Path(loaded.name)
        output.require_writable(out, force=force, inputs=[model, Path(recipe)])
        with redirect_stdout(sys.stderr):  # as in `train`
            setting = running.prepare(loaded, data_root, device, bar(), Clock(STARTED, "imports"))
            results = running.apply(
                loaded, model, out, setting, warned=warned, place=partial(loading.place, recipe, changes or ())
            )
        if as_json:
            print_json(results)
        else:
            _show_results(results, out)


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for model.pt and the results.")] = Path("demo"),
    data_root: DataOption = Path("data"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """The whole job in a minute: train an autoencoder briefly, prune 48 of its 64 latent nodes, see what is left."""
    with reporting(debug) as warned:
        from compress.recipe import demo as job
        from compress.recipe import output
        from compress.recipe.clock import Clock

        output.require_writable(out, force=force)
        results = job.run(out, data_root, device, bar(), tell, Clock(STARTED, "imports"), warned)
        if as_json:
            print_json(results)
        else:
            _show_results(results, out / "mnist_ae")


def _show_results(results: dict[str, Any], out: Path) -> None:
    from compress.report import tables

    note(results["data"])
    show(tables.stages(results))
    show(tables.models(results))
    for line in tables.closing(results):
        say(line)
    for path in sorted(out.iterdir()):
        say(f"  {path}")
