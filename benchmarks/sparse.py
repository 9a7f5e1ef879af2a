"""Times Linear layers and networks with many zeros in torch, dense and as `compress.sparse` makes them.

    python benchmarks/sparse.py --data-root DIR
    python benchmarks/sparse.py --quick

One thread, whose own processor time is counted. Dense and sparse run in turns, and a ratio is the median over the
rounds. Both are torch's: they say nothing about onnxruntime.

Networks: an autoencoder of widths 1024 and 2048 with random weights, 95 % of each layer zero (times do not depend on
the values), and the classifier and the decoder of the recipes, trained shortly and pruned as the recipes do. Beside the
times stand the sizes of their files, as `compress.export.safetensors` and `compress.export.sparse` write them.

The plots show a single Linear layer of n inputs and n outputs, over the share of its zeros.

Without --data-root the images are those of mnist_sample.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

import compress
import compress.export
from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.report import plots
from compress.run.building import build_model, build_task
from compress.run.clock import Clock
from compress.run.data_sets import build_data
from compress.run.provenance import cpu_name
from compress.run.setting import Setting, optimization, unwatched

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "sparse.json"
WIDTHS, BATCHES = (256, 512, 1024, 2048, 4096), (1, 32)
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
EPOCHS, IMAGES = 4, 15_000  # of the dense training
LENGTH = 2e-3  # seconds of repeated calls in a round, so that the clock's own time does not count


def main(
    data_root: Annotated[
        Path | None, typer.Option(envvar="COMPRESS_DATA", help="Where MNIST lies; mnist_sample if absent.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Of dense and sparse in turns.")] = 31,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds, small widths.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures, with plots beside it.")] = REPORT,
) -> None:
    """Measure all networks and layers; print them, write them as JSON and draw the layers."""
    torch.set_num_threads(1)
    rounds, widths = (5, WIDTHS[:2]) if quick else (rounds, WIDTHS)
    document: dict[str, Any] = {
        "machine": {"cpu": cpu_name(), "threads": 1, "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)},
        "versions": {name: version(name) for name in ("softprune", "torch")},
        "data": "mnist" if data_root else "mnist_sample",
        "rounds": rounds,
        "networks": {name: networked(*found, rounds) for name, found in networks(data_root)},
        "layers": list(layers(widths, rounds)),
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw(document["layers"], report)


# --- networks ---


def networks(data_root: Path | None) -> Iterator[tuple[str, tuple[nn.Module, Tensor]]]:
    """(name, (network, sample))."""
    torch.manual_seed(0)
    yield "autoencoder 784-2048-1024-64-1024-2048-784, 95 %", (wide_autoencoder(), torch.rand(1, 784))
    classifier, setting = trained("mnist_classifier", data_root, 0, EPOCHS)
    prune(classifier, setting, "dense.*", 0.99, "scaled_magnitude")
    yield "MNIST classifier, 99 %", (classifier, torch.randn(1, 1, 28, 28))
    autoencoder, setting = trained("mnist_decoder", data_root, 0, EPOCHS)
    prune(autoencoder, setting, "decoder.*", 0.95, "magnitude")
    yield "MNIST decoder, 95 %", (autoencoder.decoder, torch.randn(1, 64))  # type: ignore[misc]


def wide_autoencoder() -> nn.Module:
    widths = (784, 2048, 1024, 64, 1024, 2048, 784)
    model = nn.Sequential(*(layer for ends in pairwise(widths) for layer in (nn.Linear(*ends), nn.Tanh())))
    compress.Pruner(model, "*", sparsity=0.95, scope="layer").finalize()
    return model.eval()


def trained(name: str, data_root: Path | None, seed: int, epochs: int) -> tuple[nn.Module, Setting]:
    """The dense network of a recipe, after some epochs on some of its images, and what it trains with."""
    data_of = f"data.train={IMAGES}" if data_root else "data={name: mnist_sample}"
    recipe = load_recipe(name, [f"train.epochs={epochs}", data_of])
    data, task = build_data(recipe.data, data_root or Path("data")), build_task(recipe.task)
    setting = Setting(data, task, recipe.data.batch_size, torch.device("cpu"), seed, unwatched, Clock())
    model = build_model(recipe.model, seed)
    assert isinstance(recipe.train, schema.Training)
    setting.train(model, epochs * setting.steps_per_epoch, optimization(recipe.train))
    return model.eval(), setting


def prune(model: nn.Module, setting: Setting, target: str, sparsity: float, criterion: str) -> None:
    """Gradually and softly, for one epoch."""
    steps = setting.steps_per_epoch
    removal = compress.GradualSoft(steps=max(2, round(0.8 * steps)))
    pruner = compress.Pruner(model, target, sparsity=sparsity, criterion=criterion, removal=removal)
    retraining = optimization(schema.Retraining(epochs=1, optimizer="adam", lr=2e-3))
    setting.train(model, steps, retraining, after_step=lambda step: pruner.step(), pruner=pruner)
    pruner.finalize()
    model.eval()


def networked(model: nn.Module, sample: Tensor, rounds: int) -> dict[str, Any]:
    """Times at each batch size, what became sparse, and bytes."""
    found: dict[str, Any] = {"batches": {}, "bytes": sizes(model)}
    for batch in BATCHES:
        small = compress.sparse(model, sample, batch)
        inputs = torch.randn(batch, *sample.shape[1:])
        times = in_turns(lambda: model(inputs), lambda: small(inputs), rounds)  # noqa: B023 (called here)
        report = small.sparse_report
        assert isinstance(report, compress.SparseReport)
        found["batches"][str(batch)] = {**times, "sparse": len(report.converted), "layers": len(report.layers)}
        print(f"batch {batch}: {times}\n{report}", flush=True)
    return found


def sizes(model: nn.Module) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: Path(scratch) / f"{name}.safetensors" for name in ("dense", "sparse")}
        compress.export.safetensors(model, paths["dense"])
        compress.export.sparse(model, paths["sparse"])
        return {name: path.stat().st_size for name, path in paths.items()}


# --- layers ---


def layers(widths: tuple[int, ...], rounds: int) -> Iterator[dict[str, Any]]:
    """Each width, share of zeros and batch size."""
    for width in widths:
        for share in SHARES:
            torch.manual_seed(0)
            linear = nn.Linear(width, width)
            compress.Pruner(linear, "weight", sparsity=share).finalize()
            small = compress.SparseLinear(linear)
            for batch in BATCHES:
                x = torch.randn(batch, width)
                times = in_turns(lambda: linear(x), lambda: small(x), rounds)  # noqa: B023 (called here)
                yield {"width": width, "zeros": share, "batch": batch, **times}
        print(f"width {width}", flush=True)


def in_turns(dense: Callable[[], object], sparse: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, and how many times as fast sparse is: the median over the rounds."""
    with torch.inference_mode():
        calls = {run: max(1, round(LENGTH / seconds(run, 1))) for run in (dense, sparse)}
        times = [(seconds(dense, calls[dense]), seconds(sparse, calls[sparse])) for _ in range(rounds)]
    ones, others = zip(*times, strict=True)
    faster = statistics.median(one / other for one, other in times)
    return {
        "dense_ms": 1e3 * statistics.median(ones),
        "sparse_ms": 1e3 * statistics.median(others),
        "times_as_fast": faster,
    }


def seconds(run: Callable[[], object], calls: int) -> float:
    """Of one call, after one that does not count: the thread's own time, without that of other processes."""
    run()
    start = time.thread_time()
    for _ in range(calls):
        run()
    return (time.thread_time() - start) / calls


def draw(rows: list[dict[str, Any]], report: Path) -> None:
    figure, axes = plots.canvas()
    for number, batch in enumerate(BATCHES):
        for place, width in enumerate(sorted({row["width"] for row in rows})):
            found = [row for row in rows if (row["width"], row["batch"]) == (width, batch)]
            line = [(100 * (1 - row["zeros"]), row["times_as_fast"]) for row in found]
            label = f"{width} x {width}, batch {batch}"
            axes.plot(*zip(*line, strict=True), plots.DASHES[number], color=plots.COLOURS[place], label=label)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="nonzero weights (%)", ylabel="times as fast as dense, in torch")
    axes.invert_xaxis()
    axes.legend(fontsize="small", ncols=2)
    for suffix in (".svg", ".png"):
        plots.save(figure, report.stem, report.with_suffix(suffix))


if __name__ == "__main__":
    typer.run(main)
