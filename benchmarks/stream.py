"""Compares the latency of transformers whose residual stream is cut with that of the same shape built by hand.

    python benchmarks/stream.py
    python benchmarks/stream.py --quick

Half of the nodes of the stream, that is of the embedding width, of three encoders with random weights: as large as
ViT-S (norms before the blocks), as large as BERT-base with six blocks (norms after them), and ViT-S with RMSNorm. The
norms of the slim network still divide by the width before the cut: a layer norm in plain operators, a
root-mean-square norm as before with another gain. By hand they are plain norms over the smaller width.
"""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

import compress
from compress.export import latency
from compress.run.provenance import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "stream.json"
OTHERS = ("by hand", "dense")


@dataclass(frozen=True)
class Shape:
    """Of an encoder; `inner` is the width of all heads together, which the stream's does not change."""

    width: int
    inner: int
    heads: int
    hidden: int
    blocks: int
    positions: int
    norm: Callable[[int], nn.Module]
    first: bool
    """Whether a block norms its input, rather than its sum with the input."""


class Block(nn.Module):
    """Attention, or a two-layer network, with its norm and its residual connection."""

    def __init__(self, shape: Shape, *, attends: bool) -> None:
        super().__init__()
        self.norm, self.first = shape.norm(shape.width), shape.first
        self.heads = shape.heads if attends else 0
        self.expand = nn.Linear(shape.width, 3 * shape.inner if attends else shape.hidden)
        self.reduce = nn.Linear(shape.inner if attends else shape.hidden, shape.width)

    def forward(self, stream: Tensor) -> Tensor:
        inside = self.expand(self.norm(stream) if self.first else stream)
        inside = self.reduce(self.attended(inside) if self.heads else F.gelu(inside))
        result: Tensor = stream + inside if self.first else self.norm(stream + inside)
        return result

    def attended(self, mixed: Tensor) -> Tensor:
        query, key, value = mixed.view(*mixed.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def encoder(shape: Shape) -> nn.Module:
    """[N, positions, 64] to [N, positions, 10]."""
    blocks = [Block(shape, attends=attends) for _ in range(shape.blocks) for attends in (True, False)]
    return nn.Sequential(nn.Linear(64, shape.width), *blocks, shape.norm(shape.width), nn.Linear(shape.width, 10))


def main(
    seconds: Annotated[float, typer.Option(help="How long the timing of each network takes, roughly.")] = 60.0,
    threads: Annotated[int, typer.Option(help="Of onnxruntime.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the time.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Time dense, slim and by hand in turns; print a table and write it as JSON."""
    versions = {name: version(name) for name in ("softprune", "torch", "onnxruntime")}
    cases = {name: measured(shape, seconds / (5 if quick else 1), threads) for name, shape in SHAPES.items()}
    load = round(os.getloadavg()[1], 1)
    machine = {"cpu": cpu_name(), "threads": threads, "cores": os.cpu_count(), "load": load}
    document = {"machine": machine, "versions": versions, "seconds": seconds, "quick": quick, "cases": cases}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print(f"slim's median latency in ms at batch size 1, onnxruntime with {threads} thread(s)")
    print(f"{'network':<14}{'slim':>10}" + "".join(f"{'/ ' + other:>10}" for other in OTHERS))
    for name, found in cases.items():
        ratios = "".join(f"{found['slim_to'][other]:10.3f}" for other in OTHERS)
        print(f"{name:<14}{found['p50_ms']['slim']:10.3f}{ratios}")


def measured(shape: Shape, seconds: float, threads: int) -> dict[str, Any]:
    """Parameters and p50 in milliseconds of dense, slim and by hand, and the ratios of slim to the others."""
    example = torch.randn(2, shape.positions, 64, generator=torch.Generator().manual_seed(0))
    networks = built(shape, example)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{name}.onnx" for name in networks}
        for name, network in networks.items():
            compress.export.onnx(network, files[name], example)
        timings = latency.measure(files, batch_sizes=[1], threads=threads, rounds=100, seconds=seconds)
    return {
        "params": {name: sum(entry.numel() for entry in network.parameters()) for name, network in networks.items()},
        "p50_ms": {name: found["1"].p50 for name, found in timings.summary().items()},
        "slim_to": {other: timings.ratio("slim", other, 1) for other in OTHERS},
    }


def built(shape: Shape, example: Tensor) -> dict[str, nn.Module]:
    """Dense, slim and by hand; slim and by hand have the same parameters' shapes."""
    torch.manual_seed(0)
    dense, by_hand = (encoder(one).eval() for one in (shape, replace(shape, width=shape.width // 2)))
    with torch.no_grad():
        for norm in (parameter for parameter in [*dense.parameters(), *by_hand.parameters()] if parameter.ndim == 1):
            norm.add_(torch.randn_like(norm), alpha=0.1)  # what begins as ones or zeros would be left out of the file
    masked = copy.deepcopy(dense)
    compress.Pruner(masked, compress.nodes("0"), sparsity=0.5, criterion="norms", example=example).finalize()
    slim = compress.slim(masked, example)
    shapes = [[entry.shape for entry in network.state_dict().values()] for network in (slim, by_hand)]
    if shapes[0] != shapes[1]:
        raise SystemExit(f"slim and by hand are not of the same shape: {shapes[0]} and {shapes[1]}")
    return {"dense": dense, "slim": slim, "by hand": by_hand}


VIT_S = Shape(384, 384, 6, 1536, 12, 197, nn.LayerNorm, first=True)

SHAPES: Mapping[str, Shape] = {
    "ViT-S": VIT_S,
    "BERT, 6 blocks": Shape(768, 768, 12, 3072, 6, 128, nn.LayerNorm, first=False),
    "RMSNorm": replace(VIT_S, norm=nn.RMSNorm),
}


if __name__ == "__main__":
    typer.run(main)
