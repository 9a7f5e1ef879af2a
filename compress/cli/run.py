"""The commands that train: train, apply, demo."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli.console import FIRST, STARTED, note, print_json, reporting, say, show, tell, watching
from compress.cli.next_steps import after_apply, after_recipes, after_train, repeated, to_resume
from compress.cli.options import (
    OUTPUT,
    DataOption,
    DebugOption,
    DeviceOption,
    EveryOption,
    ExpectOption,
    ForceOption,
    JsonOption,
    LogOption,
    ModelArgument,
    QuietOption,
    RecipeArgument,
    ResumeOption,
    SeedOption,
    SetOption,
    expecting,
    load,
    read_by,
)
from compress.wording import count_of

if TYPE_CHECKING:
    from compress.results import Results


def train(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="The file for the trained weights.", rich_help_panel=OUTPUT)],
    changes: SetOption = None,
    data_root: DataOption = Path("data"),
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    every: EveryOption = 60.0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    log: LogOption = None,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the recipe's dense network.

    Example: compress train mnist_ae -o model.pt
    """
    with reporting(debug, quiet=quiet):
        loaded = load(recipe, changes, seed)
        from compress.report.measures import measured_text
        from compress.run import apply, output
        from compress.run.clock import Clock
        from compress.run.journal import kept
        from compress.train.ranks import joined

        if FIRST:
            output.require_file(out, force=force or (resume and output.placed(out)), inputs=read_by(loaded, recipe))
        common = repeated(changes, seed, device, data_root)
        again = to_resume("train", recipe, *common, out=out, every=every, json=as_json, quiet=quiet, force=force)
        with (
            watching(quiet=quiet, log=log, name=f"{loaded.name}-train") as watcher,
            kept(
                out, resume=resume, force=force, quiet=quiet, every=every, command=again, tell=tell, first=FIRST
            ) as journal,
            joined() as ranks,
        ):
            clock = Clock(STARTED, "imports", watcher.phase)
            setting = apply.prepare(loaded, data_root, device, watcher, clock, journal, ranks)
            done = apply.train_dense(loaded, out, setting)
        if done is None:  # of several processes, only the first prints
            return
        if as_json:
            print_json(done)
        else:
            if not quiet:
                note(done["data"])
            found = measured_text(done["metric"], done.get("error", {}))
            say(f"{out}: {found} after {count_of(done['steps'], 'step')} in {done['seconds']:.1f} s")
            if not quiet:
                say(after_train(recipe, out, loaded.name, common))


def apply(
    recipe: RecipeArgument,
    model: ModelArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder for the results; the recipe's name by default.", rich_help_panel=OUTPUT
        ),
    ] = None,
    changes: SetOption = None,
    expect: ExpectOption = None,
    data_root: DataOption = Path("data"),
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    resume: ResumeOption = False,
    every: EveryOption = 60.0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    log: LogOption = None,
    force: ForceOption = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a file, such as the int8 one, is not written.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Prune, retrain, slim, prove, export and time.

    Example: compress apply mnist_ae model.pt -o out --set stages.0.sparsity=0.9
    """
    with reporting(debug, quiet=quiet) as warned:
        changes = expecting(changes, expect)
        loaded = load(recipe, changes, seed)
        from compress.recipe import loading
        from compress.run import against_constant, apply, artefacts, inputs, output
        from compress.run.clock import Clock
        from compress.run.journal import kept
        from compress.train.ranks import joined

        out = out or Path(loaded.name)
        if FIRST:
            output.require_writable(
                out, force=force or (resume and output.placed(out)), inputs=read_by(loaded, recipe, model)
            )
        inputs.require_model(model, inputs.making(model, loaded, recipe, changes or ()))
        common = repeated(changes, seed, device, data_root)
        again = to_resume("apply", recipe, model, *common, out=out, every=every, json=as_json, quiet=quiet, force=force)
        with (
            watching(quiet=quiet, log=log, name=loaded.name, out=out) as watcher,
            kept(
                out,
                resume=resume,
                force=force,
                quiet=quiet,
                every=every,
                command=again,
                tell=tell,
                first=FIRST,
                drafts=artefacts.FILES,
            ) as journal,
            joined() as ranks,
        ):
            clock = Clock(STARTED, "imports", watcher.phase)
            setting = apply.prepare(loaded, data_root, device, watcher, clock, journal, ranks)
            results = apply.apply(
                loaded, model, out, setting, warned=warned, place=partial(loading.place, recipe, changes or ())
            )
        if results is None:
            return
        if as_json:
            print_json(results)
        else:
            _show_results(results, out, quiet)
        against_constant.require_better(results)
        if not (as_json or quiet):
            say(after_apply(out))
        if strict and any("refused" in choice for choice in results.get("choices", {}).values()):
            raise typer.Exit(1)


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for model.pt and the results.", rich_help_panel=OUTPUT)
    ] = Path("demo"),
    data_root: DataOption = Path("data"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the whole workflow in a minute: train an autoencoder, prune 48 of its 64 latent nodes, show the result.

    Example: compress demo -o demo
    """
    with reporting(debug, quiet=quiet) as warned:
        from compress.run import against_constant, output
        from compress.run import demo as job
        from compress.run.clock import Clock

        output.require_writable(out, force=force)
        with watching(quiet=quiet) as watcher:
            clock = Clock(STARTED, "imports", watcher.phase)
            results = job.run(out, data_root, device, watcher, _silent if quiet else tell, clock, warned)
        if as_json:
            print_json(results)
        else:
            _show_results(results, out / "mnist_ae", quiet)
        against_constant.require_better(results)
        if not as_json:
            if not quiet:
                say(after_recipes())
            _show_outcome(results)


def _silent(line: str) -> None:
    pass


def _show_outcome(results: "Results") -> None:
    from compress.report import outcome

    show(outcome.bars(results))
    for line in outcome.digits(results, unicode=(sys.stdout.encoding or "").lower().startswith("utf")):
        say(line)
    say(outcome.gain(results))


def _show_results(results: "Results", out: Path, quiet: bool) -> None:
    from compress.report import tables

    if not quiet:
        note(results["data"])
    show(tables.stages(results))
    show(tables.choices(results))
    for line in tables.closing(results):
        say(line)
    for path in sorted(out.iterdir()):
        if not path.name.startswith("."):
            say(f"  {path}")
