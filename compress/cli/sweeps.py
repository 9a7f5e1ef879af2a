"""The commands that run many trainings: compare, reproduce."""

import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from compress.cli.completion import weights
from compress.cli.console import people, print_json, reporting, say, tell, tell_results
from compress.cli.next_steps import after_compare, repeated
from compress.cli.options import (
    DataOption,
    DebugOption,
    DeviceOption,
    EngineOption,
    ExpectOption,
    JsonOption,
    QuietOption,
    RecipeArgument,
    SetOption,
    WorkersOption,
    expecting,
    levels_of,
    read_by,
    tell_factories,
)
from compress.sweep.engines import Workers
from compress.wording import count_of

AXES = "What to compare (comma-separated lists)"


def compare(
    recipe: RecipeArgument,
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="The trained network: one file, or one per seed.", autocompletion=weights
        ),
    ],
    removal: Annotated[
        str | None,
        typer.Option("--removal", metavar="LIST", help="hard,soft,'{kind: soft, decay: linear}'", rich_help_panel=AXES),
    ] = None,
    criterion: Annotated[
        str | None, typer.Option("--criterion", metavar="LIST", help="magnitude,random", rich_help_panel=AXES)
    ] = None,
    scope: Annotated[
        str | None, typer.Option("--scope", metavar="LIST", help="global,layer", rich_help_panel=AXES)
    ] = None,
    sparsity: Annotated[
        str | None, typer.Option("--sparsity", metavar="LIST", help=".9,.95,.99", rich_help_panel=AXES)
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            "--lr",
            metavar="LIST",
            help="Learning rates to try; by default the recipe's times 0.5, 1, 2, 4.",
            rich_help_panel=AXES,
        ),
    ] = None,
    rival: Annotated[
        str | None,
        typer.Option(
            "--rival",
            metavar="LIST",
            help="scratch: also train the shape of the first combination from random weights.",
            rich_help_panel=AXES,
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, max=1000, help="Number of seeds; 5, or one per model, if absent.")
    ] = None,
    stage: Annotated[int, typer.Option("--stage", min=0, help="Which stage of the recipe, from 0.")] = 0,
    changes: SetOption = None,
    expect: ExpectOption = None,
    workers: WorkersOption = 2,
    engine: EngineOption = "local",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for table and curves; runs/compare/NAME by default.")
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Folder for finished cells.")] = Path("runs/compare/cells"),
    data_root: DataOption = Path("data"),
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare removals and criteria at equal steps.

    Example: compress compare mnist_ae model.pt --removal hard,soft --seeds 3
    """
    with reporting(debug, quiet=quiet, interrupted=f"interrupted: finished cells are kept in {cache}") as warned:
        changes = expecting(changes, expect)
        from compress.sweep.compare import grid

        planned = grid.plan(
            recipe,
            models,
            removals=grid.split(removal),
            criteria=grid.split(criterion),
            scopes=grid.split(scope),
            sparsities=grid.split(sparsity),
            rates=grid.split(rates),
            rivals=grid.split(rival),
            seeds=seeds,
            number=stage,
            changes=changes or (),
        )
        tell_factories(planned.recipe)
        # Imported after these checks, since torch is slow to import, and a misspelt name is reported without it.
        from compress.report import tables
        from compress.report.progress import sweep_bar
        from compress.run import output
        from compress.sweep.compare import document, running

        out = out or Path("runs/compare") / planned.recipe.name
        output.require_names(out, document.FILES, "compare", read_by(planned.recipe, recipe, *models))
        output.require_cache(cache, out)
        with redirect_stdout(sys.stderr):  # as in `train`
            results = running.compare(
                planned,
                data_root,
                cache,
                workers=Workers(workers, engine),
                device=device,
                bar=partial(sweep_bar, people(), quiet=quiet),
            )
        results["warnings"] = warned
        document.write_all(results, out)
        if as_json:
            print_json(results)
        else:
            tell_results(tables.comparison(results), document.closing(results), out, document.FILES)
            following = after_compare(results, recipe, models[0], repeated(changes, data_root=data_root))
            for line in () if quiet else following:
                say(line)


def reproduce(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            help="classification, decoder, latent, calibration, classification_nodes, decoder_nodes, or one data set "
            "as in latent/mnist; all by default."
        ),
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Same as the argument.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, max=1000, help="Run only the first N seeds.")] = None,
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="SHARES", help="Run only these levels, such as .75,.95.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few minutes on mnist_sample.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="Only write the page, from finished cells.")] = False,
    resume: Annotated[Path | None, typer.Option("--resume", help="Reuse the finished cells of a results.json.")] = None,
    workers: WorkersOption = 2,
    engine: EngineOption = "local",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for paper.md and paper/; docs, or the cache for a part.")
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Folder for finished cells and trained networks.")] = Path(
        "runs/paper"
    ),
    data_root: DataOption = Path("data"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the paper's experiments, and write a page that compares them with the paper's figures.

    Example: compress reproduce --quick
    """
    with reporting(debug, quiet=quiet, interrupted=f"interrupted: finished cells are kept in {cache}"):
        from compress.paper import reproducing
        from compress.paper.experiments import PAPER, QUICK, all_cells
        from compress.report.progress import sweep_bar
        from compress.run import output

        wanted = [*(experiments or []), *(only or [])]
        cells = reproducing.choose(all_cells(QUICK if quick else PAPER), wanted, seeds, levels_of(levels))
        whole = not (quick or wanted or seeds or levels)
        out = out or (Path("docs") if whole else cache)
        output.require_names(out, reproducing.FILES, "reproduce")
        for part in ("cells", "networks"):
            output.require_cache(cache / part, out)
        if resume is not None:
            done = reproducing.restore(resume, cells, cache)
            if not quiet:
                tell(f"{resume}: {done} of {count_of(len(cells), 'cell')} are done")
        if draw:
            found = reproducing.finished(cells, cache)
        else:
            with sweep_bar(people(), "reproduce", quiet=quiet) as on_progress, redirect_stdout(sys.stderr):
                found = reproducing.run(cells, data_root, cache, Workers(workers, engine), on_progress)
        results = reproducing.collect(cells, found)
        reproducing.write_all(results, out)
        if as_json:
            print_json(results)
        else:
            say(f"{out / 'paper.md'}: {len(results['cells']):,} of {count_of(results['planned'], 'cell')}")
