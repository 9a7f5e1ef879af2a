"""The command `quantize`."""

import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from compress.cli.completion import models, training_data
from compress.cli.console import print_json, reporting, say, show
from compress.cli.next_steps import after_quantize
from compress.cli.options import (
    INPUT,
    OUTPUT,
    DataOption,
    DebugOption,
    ForceOption,
    JsonOption,
    SetOption,
    batch_sizes_of,
    load,
)
from compress.errors import InputError


def quantize(
    file: Annotated[Path, typer.Argument(help="Any ONNX file of float32.", autocompletion=models)],
    source: Annotated[
        str,
        typer.Option(
            "--data",
            help="Training data: an .npz with an array per input (and `labels`), or a recipe.",
            rich_help_panel=INPUT,
            autocompletion=training_data,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The int8 file; FILE.int8.onnx by default.", rich_help_panel=OUTPUT),
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="auto, static or dynamic.")] = "auto",
    method: Annotated[
        str, typer.Option("--method", help="How static int8 is calibrated: minmax, percentile or entropy.")
    ] = "minmax",
    samples: Annotated[int, typer.Option("--samples", help="Number of training samples for calibration.")] = 512,
    max_drop: Annotated[
        float, typer.Option("--max-drop", help="Largest allowed drop: points of accuracy, or percent of the loss.")
    ] = 0.5,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="A node or operator to keep in float, such as Gemm or '*head*'; repeatable."),
    ] = None,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="Use one scale per weight instead of one per channel.")
    ] = False,
    batch_sizes: Annotated[
        str, typer.Option("--batch-sizes", help="Batch sizes to time, separated by commas.")
    ] = "1,32",
    threads: Annotated[int, typer.Option("--threads", help="Threads of onnxruntime.")] = 1,
    changes: SetOption = None,
    data_root: DataOption = Path("data"),
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if no int8 file is kept.")] = False,
    as_json: JsonOption = False,
    force: ForceOption = False,
    debug: DebugOption = False,
) -> None:
    """Quantize an ONNX file to int8, and keep it if it is faster or smaller and loses little.

    Example: compress quantize slim.onnx --data mnist_classifier --max-drop 0.5
    """
    with reporting(debug):
        from compress.quantize.settings import Calibration, Quantization

        wanted = Quantization(kind, not per_tensor, max_drop, Calibration(samples, method), exclude or ())  # type: ignore[arg-type]
        sizes = batch_sizes_of(batch_sizes)
        npz = source.endswith(".npz")
        if npz and changes:
            raise InputError("--set changes a recipe, and --data is an .npz file")
        if not npz:
            load(source, changes, None)  # reports whose code it runs, before it does
        from compress.report import quantized
        from compress.run import output, quantizing

        goal = out or file.with_suffix(".int8.onnx")
        output.require_new(goal, force=force, inputs=[file, *([Path(source)] if npz else [])])
        with redirect_stdout(sys.stderr):  # output of the user's factories is not a result
            found = quantizing.quantize_file(
                file, source, goal, wanted, root=data_root, changes=changes or (), batch_sizes=sizes, threads=threads
            )
        if "refused" in found:
            warnings.warn(found["refused"], stacklevel=1)
        if as_json:
            print_json(found)
        else:
            show(quantized.tried(found))
            for line in [*quantized.lines(found), *after_quantize(found)]:
                say(line)
        if "refused" in found and strict:
            raise typer.Exit(1)
