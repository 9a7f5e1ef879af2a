"""The commands about files: export, bench, report, inspect, recipes."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli.completion import models, shipped_names
from compress.cli.completion import recipes as recipe_names
from compress.cli.console import print_json, reporting, say, show
from compress.cli.next_steps import after_bench, after_export, after_inspect, after_recipes
from compress.cli.options import (
    INPUT,
    OUTPUT,
    DebugOption,
    ForceOption,
    JsonOption,
    ModelArgument,
    SetOption,
    batch_sizes_of,
    load,
)
from compress.errors import InputError

if TYPE_CHECKING:
    from compress.documents import ExportedFile


def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the files.", rich_help_panel=OUTPUT)],
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="The network's recipe; a slim.safetensors contains it.",
            rich_help_panel=INPUT,
            autocompletion=recipe_names,
        ),
    ] = None,
    changes: SetOption = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="onnx, safetensors, pt2, sparse or sparse_int8; by default the first three.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", help="ONNX opset, 18 to 25; by default the exporter's choice.", rich_help_panel=OUTPUT),
    ] = None,
    as_json: JsonOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Write ONNX, safetensors (sparse: without zeros; sparse_int8: rounded, too) and .pt2 files, with masks folded.

    Example: compress export model.pt --recipe mnist_ae -o files
    """
    with reporting(debug):
        from compress.files.places import without_key
        from compress.run import exporting, inputs, output

        output.require_writable(out, force=force, inputs=[without_key(model)[0]])
        inputs.require_model(model)
        if recipe is not None:
            load(recipe, changes, None)  # reports whose code it runs, before it does
        with redirect_stdout(sys.stderr):  # as in `train`
            usual = formats or exporting.USUAL
            written = exporting.export(model, recipe, out, usual, changes or (), opset=opset)
        if as_json:
            print_json(written)
        else:
            for name, found in written["files"].items():
                say(f"{out / name}: {found['bytes']:,} bytes" + _difference(found))
            say(after_export(out, list(written["files"])))


def bench(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Files to time: .onnx, .safetensors, .pt2, or .pt with --recipe; ratios are to the first.",
            autocompletion=models,
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="The recipe of the networks in .pt files; a slim.safetensors contains it.",
            rich_help_panel=INPUT,
            autocompletion=recipe_names,
        ),
    ] = None,
    changes: SetOption = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Also time .pt2 programs; loading one can run code from it.")
    ] = False,
    batch_sizes: Annotated[str, typer.Option("--batch-sizes", help="Samples per call, separated by commas.")] = "1,32",
    sizes: Annotated[
        str, typer.Option("--sizes", help="Sizes of dynamic dimensions, separated by commas: length=128")
    ] = "",
    threads: Annotated[int, typer.Option("--threads", help="Threads of the runtime.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="Approximate time limit in seconds.")] = 4.0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Time files in turns: ONNX in onnxruntime, weights and programs in torch.

    Example: compress bench dense.onnx slim.onnx --batch-sizes 1,32
    """
    with reporting(debug):
        from compress.report import tables
        from compress.run.benching import bench as timed

        if recipe is not None:
            load(recipe, changes, None)  # reports whose code it runs, before it does
        found = timed(
            files,
            recipe=recipe,
            changes=changes or (),
            trusted=trust,
            batch_sizes=batch_sizes_of(batch_sizes),
            sizes=_named(sizes),
            threads=threads,
            seconds=seconds,
        )
        if as_json:
            print_json(found)
        else:
            show(tables.latencies(found))
            for line in tables.load_lines(found):
                say(line)
            say(after_bench(found))


def report(
    results: Annotated[Path, typer.Argument(help="The output folder of `compress apply`, or its results.json.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The page; by default report.html next to results.json.")
    ] = None,
    as_json: JsonOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Create report.html from results.json.

    Example: compress report out
    """
    with reporting(debug):
        from compress.report import page
        from compress.run import output

        source = page.source(results)
        goal = out or source.with_name("report.html")
        text = page.render(page.read(source), source)
        again = out is None and output.is_written(goal, text)
        output.require_new(goal, force=force or again, inputs=[source])
        with output.added(goal.parent, goal.name) as draft:
            draft.write_text(text, encoding="utf-8", newline="\n")
        if as_json:
            print_json({"report": str(goal), "bytes": goal.stat().st_size})
        else:
            say(str(goal))


def inspect(
    file: Annotated[Path, typer.Argument(help="A .pt, .pth, .safetensors, .pt2 or .onnx file.", autocompletion=models)],
    trust: Annotated[
        bool, typer.Option("--trust", help="Also load a .pt2 as a program, for its MACs; this can run code from it.")
    ] = False,
    whole_recipe: Annotated[bool, typer.Option("--recipe", help="Show the whole recipe stored in the file.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the content of a file: layers, zeros, MACs, what can be pruned, and its recipe.

    Example: compress inspect slim.onnx
    """
    with reporting(debug):
        from compress.report import files
        from compress.run.inspecting import inspect as look

        found = look(file, trusted=trust)
        if as_json:
            print_json(found)
        else:
            show(files.layers(found))
            for line in [*files.summary(found, whole_recipe=whole_recipe), *after_inspect(found)]:
                say(line)


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="Print this shipped recipe; start your own from it.", autocompletion=shipped_names),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the shipped recipes, or print one.

    Example: compress recipes mnist_ae > mine.yaml
    """
    with reporting(debug):
        from compress.recipe.shipped import shipped, shipped_text
        from compress.report import tables

        if schema:
            from compress.recipe.schema import json_schema  # building the schema takes as long as the whole listing

            print_json(json_schema())
        elif name is not None and as_json:
            print_json(load(name, None, None).model_dump(mode="json"))
        elif name is not None:
            say(shipped_text(name).rstrip())
        elif as_json:
            print_json(dict(shipped()))
        else:
            show(tables.recipes(shipped()))
            say(after_recipes())


def _difference(found: "ExportedFile") -> str:
    if "rounded" in found:
        return ", rounded to 8 bits: not equal to the network, so measure it"
    return f", differs from torch by {found['difference']:.1e} at most" if "difference" in found else ""


def _named(text: str) -> dict[str, int]:
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        return {name.strip(): int(size) for name, size in pairs}
    except ValueError:
        raise InputError(f"--sizes {text}: give sizes by name, separated by commas, such as length=128") from None
