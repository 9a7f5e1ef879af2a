"""Is the slim autoencoder as fast as one built by hand with as many latent nodes, and never slower than the dense one?

    compress apply mnist_ae model.pt -o OUT --set stages.0.criterion=skeletonization
    python benchmarks/latent_slim.py OUT model.pt

Timed are OUT/slim.onnx, as it was shipped, and the ONNX files of the dense network, of the masked one, and of a fresh
network that was built small.
"""

import json
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer

import compress
from compress.export import latency
from compress.models import MNIST_IMAGE, autoencoder
from compress.recipe.running import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "latent_slim.json"
BATCH_SIZES = (1, 32)


def main(
    out: Annotated[Path, typer.Argument(help="The folder of a `compress apply` run of mnist_ae.")],
    model: Annotated[Path, typer.Argument(help="The dense weights that the run started from.")],
    seconds: Annotated[float, typer.Option(help="How long the timing takes, roughly.")] = 20.0,
    threads: Annotated[int, typer.Option(help="Of onnxruntime.")] = 1,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Time the dense, masked, slim and hand-built networks in turns; print a table and write it as JSON."""
    dense = compress.load(model, model=autoencoder)
    masked = compress.load(out / "checkpoint" / "masked.safetensors", model=autoencoder)
    latent = compress.load(out / "slim.safetensors", model=autoencoder).get_parameter("latent.weight").shape[0]
    by_hand = autoencoder(latent, generator=torch.Generator().manual_seed(0))
    example = torch.zeros(2, *MNIST_IMAGE)
    with tempfile.TemporaryDirectory() as scratch:
        files = {"slim": out / "slim.onnx"}
        for name, network in (("dense", dense), ("masked", masked), ("by hand", by_hand)):
            files[name] = Path(scratch) / f"{name}.onnx"
            compress.export.onnx(network, files[name], example)
        timings = latency.measure(files, batch_sizes=BATCH_SIZES, threads=threads, rounds=100, seconds=seconds)

    medians = {name: {batch: found.p50 for batch, found in by.items()} for name, by in timings.summary().items()}
    ratio = partial(timings.ratio, "slim")
    ratios = {other: {str(batch): ratio(other, batch) for batch in BATCH_SIZES} for other in ("dense", "by hand")}
    machine = {"cpu": cpu_name(), "threads": threads}
    versions = {name: version(name) for name in ("softprune", "torch", "onnxruntime")}
    document = {"machine": machine, "versions": versions, "latent": latent, "p50_ms": medians, "slim_to": ratios}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print(f"median latency in ms, onnxruntime with {threads} thread(s), slim has {latent} latent nodes")
    print(f"{'batch':>5}" + "".join(f"{name:>10}" for name in medians) + f"{'slim/dense':>13}{'slim/by hand':>14}")
    for batch in map(str, BATCH_SIZES):
        cells = "".join(f"{by_batch[batch]:10.4f}" for by_batch in medians.values())
        print(f"{batch:>5}{cells}{ratios['dense'][batch]:13.3f}{ratios['by hand'][batch]:14.3f}")


if __name__ == "__main__":
    typer.run(main)
