"""Times the skeletonization of a layer, beside ablation node by node and beside an epoch of training.

    python benchmarks/skeletonization.py

The MNIST autoencoder, 2,000 digits (`mnist_sample`, no download), the same batches for all, in turns, one thread.
Skeletonization is one forward and one backward pass per batch, whatever the number of nodes and layers; the backward
pass has to reach the first of the layers, and so "all layers" is compared with the first layer alone. Seconds are
the process's own processor time, without that of other processes; ratios are medians of the rounds' own.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from compress import tasks
from compress.data import sources
from compress.models import autoencoder
from compress.run.provenance import cpu_name
from compress.select.activations import Tap, ablation
from compress.select.saliency import skeletonization

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "skeletonization.json"
BATCH_SIZE = 128  # of the recipe mnist_latent
LATENT = 64
EPOCH, FIRST, BOTTLENECK, ALL, ABLATION = "training epoch", "first layer", "latent", "all layers", "ablation of latent"
RATIOS = {  # (of, to): aim
    (BOTTLENECK, ABLATION): "far below 1",
    (BOTTLENECK, EPOCH): "at most 1.2",
    (FIRST, EPOCH): "at most 1.2",
    (ALL, EPOCH): "at most 1.2",
    (ALL, FIRST): "at most 1",
}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 5,
    samples: Annotated[int, typer.Option(min=1, max=4000, help="Of the training images.")] = 2000,
    quick: Annotated[bool, typer.Option("--quick", help="Two rounds of 500 images.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Time all ways in turns; print a table and write it as JSON."""
    if quick:
        rounds, samples = 2, 500
    torch.set_num_threads(1)
    model = autoencoder(LATENT, generator=torch.Generator().manual_seed(0))
    data = sources.mnist_sample(train=samples)
    ways = _ways(model, list(data.batches("train", BATCH_SIZE, "reconstruct")()))
    for run in ways.values():  # a first run that does not count, except for the slow ablation
        if run is not ways[ABLATION]:
            run()
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            measured[name].append(_seconds(run))

    seconds = {name: statistics.median(found) for name, found in measured.items()}
    ratios = {pair: _ratio(measured, *pair) for pair in RATIOS}
    document = {
        "machine": {"cpu": cpu_name(), "threads": 1},
        "versions": {name: version(name) for name in ("softprune", "torch")},
        "data": data.name,
        "samples": samples,
        "batch_size": BATCH_SIZE,
        "rounds": rounds,
        "seconds": seconds,
        "ratios": {f"{of} / {to}": value for (of, to), value in ratios.items()},
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print(f"{samples} images of {data.name} in batches of {BATCH_SIZE}, one thread, medians of {rounds} rounds")
    for name, value in seconds.items():
        print(f"{name:<22}{value:8.3f} s")
    for (of, to), value in ratios.items():
        print(f"{of + ' / ' + to:<34}{value:8.3f}   aim: {RATIOS[of, to]}")


def _ways(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Callable[[], object]]:
    loss = tasks.loss("reconstruct")
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def epoch() -> None:
        model.train()
        for inputs, target in batches:
            loss(model(inputs), target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    reader = Tap(layers[layers.index("latent") + 1], "input", torch.arange(LATENT))
    return {
        EPOCH: epoch,
        FIRST: lambda: skeletonization(model, layers[:1], batches, loss),
        BOTTLENECK: lambda: skeletonization(model, ["latent"], batches, loss),
        ALL: lambda: skeletonization(model, layers, batches, loss),
        ABLATION: lambda: ablation(model, {"latent": [reader]}, batches, loss),
    }


def _seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def _ratio(measured: dict[str, list[float]], of: str, to: str) -> float:
    return statistics.median(a / b for a, b in zip(measured[of], measured[to], strict=True))


if __name__ == "__main__":
    typer.run(main)
