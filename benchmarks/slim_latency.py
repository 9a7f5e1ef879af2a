"""Compares the latency of slim networks with that of dense and masked ones, and of the same shape built by hand.

    python benchmarks/slim_latency.py
    python benchmarks/slim_latency.py --quick

The autoencoder with 16 of 64 latent nodes, the MNIST classifier with half of its nodes, and torchvision's ResNet-18
with half of its channels (on 64 x 64 pixels), all with random weights: shapes decide, not training. For each, the ONNX
files of four networks run in turns: dense, masked (pruned nodes are zero), slim (masked after `compress.slim`) and by
hand.
"""

import copy
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet, resnet18

import compress
from compress.export import latency
from compress.models import MNIST_IMAGE, autoencoder, classifier
from compress.run.provenance import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "slim_latency.json"
BATCH_SIZES = (1, 32)
OTHERS = ("by hand", "dense", "masked")


@dataclass(frozen=True)
class Case:
    """A dense network, the share of the nodes of `layers` to prune, and the network of that size written by hand."""

    dense: Callable[[], nn.Module]
    layers: tuple[str, ...]
    sparsity: float
    by_hand: Callable[[], nn.Module]
    image: tuple[int, int, int]


def main(
    seconds: Annotated[float, typer.Option(help="How long the timing of each network takes, roughly.")] = 60.0,
    threads: Annotated[int, typer.Option(help="Of onnxruntime.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the time.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Time the networks of every case in turns; print a table and write it as JSON."""
    machine = {"cpu": cpu_name(), "threads": threads}
    versions = {name: version(name) for name in ("softprune", "torch", "torchvision", "onnxruntime")}
    cases = {name: measured(case, seconds / (5 if quick else 1), threads) for name, case in CASES.items()}
    document = {"machine": machine, "versions": versions, "seconds": seconds, "quick": quick, "cases": cases}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print(f"slim's median latency in ms, onnxruntime with {threads} thread(s), and its ratio to the others")
    print(f"{'network':<15}{'batch':>6}{'slim':>10}" + "".join(f"{'/ ' + other:>10}" for other in OTHERS))
    for name, found in cases.items():
        for batch, p50 in found["p50_ms"]["slim"].items():
            ratios = "".join(f"{found['slim_to'][other][batch]:10.3f}" for other in OTHERS)
            print(f"{name:<15}{batch:>6}{p50:10.4f}{ratios}")


def measured(case: Case, seconds: float, threads: int) -> dict[str, Any]:
    """Parameters and p50 in milliseconds of the four networks, and the ratios of slim to the others by batch size."""
    example = torch.randn(2, *case.image, generator=torch.Generator().manual_seed(0))
    networks = built(case, example)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{name}.onnx" for name in networks}
        for name, network in networks.items():
            compress.export.onnx(network, files[name], example)
        timings = latency.measure(files, batch_sizes=BATCH_SIZES, threads=threads, rounds=100, seconds=seconds)
    return {
        "params": {name: sum(entry.numel() for entry in network.parameters()) for name, network in networks.items()},
        "p50_ms": {name: {batch: found.p50 for batch, found in by.items()} for name, by in timings.summary().items()},
        "slim_to": {
            other: {str(batch): timings.ratio("slim", other, batch) for batch in BATCH_SIZES} for other in OTHERS
        },
    }


def built(case: Case, example: Tensor) -> dict[str, nn.Module]:
    """The dense network, masked, slim, and by hand; slim and by hand have the same parameters' shapes."""
    torch.manual_seed(0)
    dense, by_hand = with_biases(case.dense()), with_biases(case.by_hand())
    masked = copy.deepcopy(dense)
    target = compress.nodes(case.layers)
    compress.Pruner(masked, target, sparsity=case.sparsity, criterion="norms", example=example).finalize()
    slim = compress.slim(masked, example)
    shapes = [[entry.shape for entry in network.state_dict().values()] for network in (slim, by_hand)]
    if shapes[0] != shapes[1]:
        raise SystemExit(f"slim and by hand are not of the same shape: {shapes[0]} and {shapes[1]}")
    return {"dense": dense, "masked": masked, "slim": slim, "by hand": by_hand}


def with_biases(network: nn.Module) -> nn.Module:
    """The network with random biases, as after a training: a bias of zeros would be left out of the file."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.01)
    return network.eval()


def half_classifier() -> nn.Module:
    widths = (784, 128, 64, 32, 16)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(16, 10))


def half_resnet18() -> ResNet:
    """torchvision's ResNet-18, which has its widths in its code, with half of each."""
    model = resnet18()
    model.inplanes = 32
    model.conv1, model.bn1 = nn.Conv2d(3, 32, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(32)
    for number, (planes, stride) in enumerate(((32, 1), (64, 2), (128, 2), (256, 2)), start=1):
        setattr(model, f"layer{number}", model._make_layer(BasicBlock, planes, 2, stride))
    model.fc = nn.Linear(256, 1000)
    return model


CASES: Mapping[str, Case] = {
    "autoencoder": Case(autoencoder, ("latent",), 0.75, lambda: autoencoder(16), MNIST_IMAGE),
    "classifier": Case(classifier, ("*",), 0.5, half_classifier, MNIST_IMAGE),
    "ResNet-18": Case(resnet18, ("*",), 0.5, half_resnet18, (3, 64, 64)),
}


if __name__ == "__main__":
    typer.run(main)
