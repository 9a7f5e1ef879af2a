"""The command line: parse, call, print. Nothing heavy is imported before a command runs."""

import gc
import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from compress import __version__
from compress.errors import CompressError, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from compress.recipe.schema import Recipe

STARTED = time.perf_counter()

app = typer.Typer(
    name="compress",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a trained PyTorch network small: choose what goes, let it decay while the rest trains, cut it out, "
    "prove that nothing else changed, time the result. To see it work: compress demo",
)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (compress recipes).")]
ModelArgument = Annotated[Path, typer.Argument(help="Weights: a state_dict as .pt or .pth, or a .safetensors file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: stages.0.sparsity=0.9")
]
DataOption = Annotated[
    Path, typer.Option("--data-root", envvar="COMPRESS_DATA", help="Where data sets lie or are downloaded to.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Instead of the recipe's.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show:
        _say(__version__)
        raise typer.Exit


@app.command()
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
    with _reporting(debug):
        loaded = _load(recipe, changes, seed)
        from compress.recipe import output, running
        from compress.recipe.clock import Clock

        output.require_file(out, force=force)
        with redirect_stdout(sys.stderr):  # what a factory of the user's prints is no result
            setting = running.prepare(loaded, data_root, device, _bar(), Clock(STARTED, "imports"))
            done = running.train_dense(loaded, out, setting)
        if as_json:
            _print_json(done)
        else:
            _note(done["data"])
            metric = ", ".join(f"test {name} {value:.4g}" for name, value in done["metric"].items())
            _say(f"{out}: {metric} after {done['steps']:,} steps in {done['seconds']:.1f} s")
            _say(f"next: compress apply {recipe} {out} -o {loaded.name}")


@app.command()
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
    with _reporting(debug) as warned:
        loaded = _load(recipe, changes, seed)
        from compress.recipe import loading, output, running
        from compress.recipe.clock import Clock

        out = out or Path(loaded.name)
        output.require_writable(out, force=force, inputs=[model, Path(recipe)])
        with redirect_stdout(sys.stderr):  # as in `train`
            setting = running.prepare(loaded, data_root, device, _bar(), Clock(STARTED, "imports"))
            results = running.apply(
                loaded, model, out, setting, warned=warned, place=partial(loading.place, recipe, changes or ())
            )
        if as_json:
            _print_json(results)
        else:
            _show_results(results, out)


@app.command()
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the files.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Whose network it is; a slim.safetensors knows that itself.")
    ] = None,
    changes: SetOption = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="onnx, safetensors or pt2; all of them if absent.")
    ] = None,
    as_json: JsonOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Write ONNX, safetensors and .pt2, masks folded: compress export model.pt --recipe mnist_ae -o files"""
    with _reporting(debug):
        from compress.recipe import exporting, output

        output.require_writable(out, force=force, inputs=[model])
        with redirect_stdout(sys.stderr):  # as in `train`
            written = exporting.export(model, recipe, out, formats or exporting.FORMATS, changes or ())
        if as_json:
            _print_json(written)
        else:
            for name, found in written["files"].items():
                _say(f"{out / name}: {found['bytes']:,} bytes" + _difference(found))


@app.command()
def bench(
    files: Annotated[list[Path], typer.Argument(help="ONNX files; ratios are to the first.")],
    batch_sizes: Annotated[str, typer.Option("--batch-sizes", help="Images per call, separated by commas.")] = "1,32",
    threads: Annotated[int, typer.Option("--threads", help="Of onnxruntime.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="How long it may take, roughly.")] = 4.0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Time ONNX files under onnxruntime, in turns: compress bench dense.onnx slim.onnx"""
    with _reporting(debug):
        from compress.export import latency
        from compress.report import tables

        timings = latency.measure(
            {str(file): file for file in files}, batch_sizes=_numbers(batch_sizes), threads=threads, seconds=seconds
        )
        found = timings.document(str(files[0]))
        if as_json:
            _print_json(found)
        else:
            _show(tables.latencies(found))


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .pt, .pth, .safetensors, .pt2 or .onnx file.")],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """What a file holds: tensors, shapes, zeros, and what was noted in it: compress inspect slim.onnx"""
    with _reporting(debug):
        from compress.export.contents import inspect as look
        from compress.report import tables

        found = look(file)
        if as_json:
            _print_json(found)
        else:
            _show(tables.tensors(found["tensors"]))
            for line in tables.summary(found):
                _say(line)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this shipped recipe, to start one of your own.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the shipped recipes, or print one: compress recipes mnist_ae > my.yaml"""
    with _reporting(debug):
        from compress.recipe.shipped import shipped, shipped_text
        from compress.report import tables

        if schema:
            from compress.recipe.schema import json_schema  # building the schema takes as long as all of the listing

            _print_json(json_schema())
        elif name is not None and as_json:
            _print_json(_load(name, None, None).model_dump(mode="json"))
        elif name is not None:
            _say(shipped_text(name).rstrip())
        elif as_json:
            _print_json(dict(shipped()))
        else:
            _show(tables.recipes(shipped()))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for model.pt and the results.")] = Path("demo"),
    data_root: DataOption = Path("data"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """The whole job in a minute: train an autoencoder briefly, prune 48 of its 64 latent nodes, see what is left."""
    with _reporting(debug) as warned:
        from compress.recipe import demo as job
        from compress.recipe import output
        from compress.recipe.clock import Clock

        output.require_writable(out, force=force)
        results = job.run(out, data_root, device, _bar(), _tell, Clock(STARTED, "imports"), warned)
        if as_json:
            _print_json(results)
        else:
            _show_results(results, out / "mnist_ae")


@app.command()
def reproduce(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(help="classification, decoder, latent, calibration, or latent/mnist; all if absent."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="The same as an argument.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Only the first so many.")] = None,
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="SHARES", help="Only these, such as .75,.95")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few minutes on mnist_sample.")] = False,
    draw: Annotated[
        bool, typer.Option("--draw", help="Run nothing: write the page from the cells that are there.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Take over the finished cells of a results.json.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, of one thread each.")] = 2,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="For paper.md and paper/; docs, or the cache for a part.")
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Where finished cells and trained networks are kept.")] = Path(
        "runs/paper"
    ),
    data_root: DataOption = Path("data"),
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the paper's experiments and write them up beside its own figures: compress reproduce --quick"""
    with _reporting(debug, interrupted=f"interrupted: finished cells are kept in {cache}"):
        from compress.paper import document, figures, reproducing
        from compress.paper.experiments import PAPER, QUICK, all_cells
        from compress.recipe import output
        from compress.report.progress import sweep_bar

        wanted = [*(experiments or []), *(only or [])]
        cells = reproducing.choose(all_cells(QUICK if quick else PAPER), wanted, seeds, _shares(levels))
        whole = not (quick or wanted or seeds or levels)
        out = out or (Path("docs") if whole else cache)
        for folder in (out, cache):
            output.require_writable(folder, force=True)
        if resume is not None:
            _tell(f"{resume}: {reproducing.restore(resume, cells, cache)} of {len(cells)} cells are done")
        if not draw:
            with sweep_bar(_people(), "reproduce") as on_progress, redirect_stdout(sys.stderr):
                reproducing.run(cells, data_root, cache, workers, on_progress)
        results = reproducing.collect(cells, cache)
        figures.write_all(results, out / "paper")
        (out / "paper" / "results.json").write_text(reproducing.written(results), encoding="utf-8")
        (out / "paper.md").write_text(document.page(results, "paper"), encoding="utf-8")
        if as_json:
            _print_json(results)
        else:
            _say(f"{out / 'paper.md'}: {len(results['cells']):,} of {results['planned']:,} cells")


@app.command()
def compare(
    recipe: RecipeArgument,
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="The trained network: one file, or one for every seed.")
    ],
    removal: Annotated[
        str | None, typer.Option("--removal", metavar="LIST", help="hard,soft,'{kind: soft, decay: linear}'")
    ] = None,
    criterion: Annotated[str | None, typer.Option("--criterion", metavar="LIST", help="magnitude,random")] = None,
    scope: Annotated[str | None, typer.Option("--scope", metavar="LIST", help="global,layer")] = None,
    sparsity: Annotated[str | None, typer.Option("--sparsity", metavar="LIST", help=".9,.95,.99")] = None,
    rates: Annotated[
        str | None,
        typer.Option("--lr", metavar="LIST", help="To choose from; the recipe's times 0.5, 1, 2, 4 if absent."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="How many; 5, or as many as models, if absent.")
    ] = None,
    stage: Annotated[int, typer.Option("--stage", min=0, help="Which of the recipe's, from 0.")] = 0,
    changes: SetOption = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, of one thread each.")] = 2,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The folder for table and curves; runs/compare/NAME if absent.")
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Where finished cells are kept.")] = Path("runs/compare/cells"),
    data_root: DataOption = Path("data"),
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Which removal and criterion keep most, at equal steps: compare mnist_ae model.pt --removal hard,soft --seeds 3"""
    with _reporting(debug, interrupted=f"interrupted: finished cells are kept in {cache}"):
        from compress.compare import grid

        planned = grid.plan(
            recipe,
            models,
            removals=grid.split(removal),
            criteria=grid.split(criterion),
            scopes=grid.split(scope),
            sparsities=grid.split(sparsity),
            rates=grid.split(rates),
            seeds=seeds,
            number=stage,
            changes=changes or (),
        )
        # After that, since torch takes its time, and a misspelt name is told without it.
        from compress.compare import document, running
        from compress.recipe import output
        from compress.report import tables
        from compress.report.progress import sweep_bar

        out = out or Path("runs/compare") / planned.recipe.name
        for folder in (out, cache):
            output.require_writable(folder, force=True)
        with redirect_stdout(sys.stderr):  # as in `train`
            results = running.compare(
                planned, data_root, cache, workers=workers, device=device, bar=partial(sweep_bar, _people())
            )
        document.write_all(results, out)
        if as_json:
            _print_json(results)
        else:
            _show(tables.comparison(results))
            for line in document.closing(results):
                _say(line)
            _say(f"{out}: {', '.join(document.FILES)}")


def main() -> None:
    """Entry point of `compress` and `softprune`: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted."""
    # Importing torch and tracing networks make a million objects that stay. Looking through them for garbage again and
    # again takes a tenth of a short run, and once more at the end, where they go anyway, a second.
    gc.set_threshold(50_000, 20, 50)
    try:
        app()
    finally:
        gc.freeze()


# --- the two voices: results on stdout, everything else on stderr ---


def _people() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _tell(line: str) -> None:
    _people().print(Text(line))


def _say(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(Text(line))


def _show(table: "Table") -> None:
    Console().print(table)


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


@contextmanager
def _reporting(debug: bool, interrupted: str = "interrupted: no results were written") -> Iterator[list[str]]:
    """Errors and warnings as lines on stderr, with the exit code that the error stands for."""
    warned: list[str] = []
    console = _people()

    def warn(message: Warning | str, *_: object, **__: object) -> None:
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


def _bar() -> Callable[[str, int], AbstractContextManager[Callable[[int, float], None]]]:
    from compress.report.progress import training_bar

    return partial(training_bar, _people())


def _load(recipe: str, changes: list[str] | None, seed: int | None) -> "Recipe":
    from compress.recipe.loading import load_recipe

    return load_recipe(recipe, [*(changes or []), *([] if seed is None else [f"seed={seed}"])])


def _show_results(results: dict[str, Any], out: Path) -> None:
    from compress.report import tables

    _note(results["data"])
    _show(tables.stages(results))
    _show(tables.models(results))
    for line in tables.closing(results):
        _say(line)
    for path in sorted(out.iterdir()):
        _say(f"  {path}")


def _note(data: dict[str, Any]) -> None:
    if "note" in data:
        _people().print(Text.assemble(("note: ", "yellow"), data["note"]))


def _difference(found: dict[str, Any]) -> str:
    return f", differs from torch by {found['difference']:.1e} at most" if "difference" in found else ""


def _shares(text: str | None) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InputError(f"--levels {text}: give shares separated by commas, such as .75,.95") from None


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--batch-sizes {text}: give numbers separated by commas, such as 1,32") from None


if __name__ == "__main__":
    main()
