"""Measures time and memory of the exact choice of the smallest weights, from ten millions to a billion.

    python benchmarks/selection.py

Beside `torch.nn.utils.prune.global_unstructured`, up to the size where that still fits: it needs several copies of all
weights. Each measurement is its own process with one thread, and they take turns. Seconds are the process's own
processor time, without that of other processes; memory is the peak of resident memory beyond that before (Linux). The
plot shows the seconds over the size, with the exponent of the power law through them.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.report import plots
from compress.run.provenance import cpu_name
from compress.select.choose import choose
from compress.select.criteria.magnitude import magnitude
from compress.select.scores import Scores

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "selection.json"
SPARSITY = 0.9
LAYERS, WIDTH = 20, 100
OURS, PEER = "softprune", "global_unstructured"
FASTER, BESIDE = 20.0, 0.05  # the aims: times as fast, and bytes beside the masks as a share of the weights'

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cell:
    way: str
    dtype: str
    weights: int
    seconds: float
    wall_seconds: float
    peak_bytes: int  # the masks included
    mask_bytes: int

    @property
    def beside(self) -> float:
        """Bytes in memory beside the masks, as a share of the weights."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return (self.peak_bytes - self.mask_bytes) / (self.weights * dtype.itemsize)


def main(
    largest: Annotated[int, typer.Option(min=10**6, help="The most weights; each size is a tenth of the next.")] = 10
    ** 9,
    peer_largest: Annotated[int, typer.Option(help="The same for the peer, where it runs once and with float32.")] = (
        10**8
    ),
    rounds: Annotated[int, typer.Option(min=1, help="How often, but the largest size once.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A hundredth of all sizes.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures, with plots beside it.")] = REPORT,
) -> None:
    """Measure all sizes and types; print a table, write it as JSON and draw it."""
    if quick:
        largest, peer_largest = largest // 100, peer_largest // 100
    cells = []
    for size in (largest // 100, largest // 10, largest):
        for number in range(rounds if size < largest else 1):
            for dtype in ("float32", "bfloat16"):
                cells.append(_alone(_ours, size, dtype))
                if size < peer_largest or (size == peer_largest and dtype == "float32" and not number):
                    cells.append(_alone(_peer, size, dtype))
    rows = _medians(cells)
    exponents = {(way, dtype): _exponent(rows, way, dtype) for way in (OURS, PEER) for dtype in ("float32", "bfloat16")}
    _write(rows, exponents, report)
    _draw(rows, exponents, report)
    _print(rows, exponents)


def _alone(measure: Callable[[int, str], Cell], size: int, dtype: str) -> Cell:
    """Measure in a new process, since memory that an earlier measurement left would not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        cell = pool.submit(measure, size, dtype).result()
    print(f"{cell.way}, {size:.0e} {dtype}: {cell.seconds:.2f} s", file=sys.stderr)
    return cell


def _ours(size: int, dtype: str) -> Cell:
    def run(weights: Sequence[Tensor]) -> list[Tensor]:
        return choose([Scores(magnitude, weight) for weight in weights], SPARSITY)

    weights = _weights(size, dtype)
    masks, seconds, wall, peak = _measured(run, weights)
    kept = sum(int(mask.count_nonzero()) for mask in masks)
    assert kept == size - round(SPARSITY * size), "it is exact"
    return Cell(OURS, dtype, size, seconds, wall, peak, size)


def _peer(size: int, dtype: str) -> Cell:
    def run(weights: Sequence[Tensor]) -> None:
        modules = [nn.Module() for _ in weights]
        for module, weight in zip(modules, weights, strict=True):
            module.register_parameter("weight", nn.Parameter(weight))
        amount = round(SPARSITY * sum(weight.numel() for weight in weights))
        prune.global_unstructured([(module, "weight") for module in modules], prune.L1Unstructured, amount=amount)

    weights = _weights(size, dtype)
    _, seconds, wall, peak = _measured(run, weights)
    return Cell(PEER, dtype, size, seconds, wall, peak, size * weights[0].itemsize)


def _weights(size: int, dtype: str) -> list[Tensor]:
    """Normally distributed, drawn in place, so that nothing is left over in memory."""
    torch.manual_seed(0)
    shape = (size // LAYERS // WIDTH, WIDTH)
    return [torch.empty(shape, dtype=getattr(torch, dtype)).normal_(0, 0.02) for _ in range(LAYERS)]


def _measured(run: Callable[[Sequence[Tensor]], Result], weights: Sequence[Tensor]) -> tuple[Result, float, float, int]:
    """(result, seconds of processor time, seconds passed, peak bytes beyond those before)."""
    torch.set_num_threads(1)
    run([weight[:1].clone() for weight in weights])  # loads the code into memory, without the weights' size
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before = _resident("VmRSS")
    started, computed = time.perf_counter(), time.process_time()
    result = run(weights)
    seconds, wall = time.process_time() - computed, time.perf_counter() - started
    return result, seconds, wall, _resident("VmHWM") - before


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def _medians(cells: Sequence[Cell]) -> list[Cell]:
    """The median of the cells of each measurement."""
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.way, cell.dtype, cell.weights), []).append(cell)
    return [
        Cell(
            *key,
            statistics.median(cell.seconds for cell in alike),
            statistics.median(cell.wall_seconds for cell in alike),
            round(statistics.median(cell.peak_bytes for cell in alike)),
            alike[0].mask_bytes,
        )
        for key, alike in groups.items()
    ]


def _exponent(rows: Sequence[Cell], way: str, dtype: str) -> float | None:
    """Of the power law seconds ~ weights**exponent through all sizes, by least squares of the logarithms."""
    found = [(row.weights, row.seconds) for row in rows if (row.way, row.dtype) == (way, dtype)]
    if len(found) < 2:
        return None
    sizes, seconds = np.log(found).T
    return float(np.polyfit(sizes, seconds, 1)[0])


def _peer_of(row: Cell, rows: Sequence[Cell]) -> Cell | None:
    like = (PEER, row.dtype, row.weights)
    return next((other for other in rows if (other.way, other.dtype, other.weights) == like), None)


def _write(rows: Sequence[Cell], exponents: dict[tuple[str, str], float | None], report: Path) -> None:
    document: dict[str, Any] = {
        "machine": {"cpu": cpu_name(), "threads": 1},
        "versions": {name: version(name) for name in ("softprune", "torch")},
        "sparsity": SPARSITY,
        "rows": [{**asdict(row), "beside_share": row.beside} for row in rows],
        "times_faster": {
            f"{row.dtype}, {row.weights:.0e}": peer.seconds / row.seconds
            for row in rows
            if row.way == OURS and (peer := _peer_of(row, rows))
        },
        "exponents": {f"{way}, {dtype}": value for (way, dtype), value in exponents.items()},
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _draw(rows: Sequence[Cell], exponents: dict[tuple[str, str], float | None], report: Path) -> None:
    figure, axes = plots.canvas()
    for number, ((way, dtype), exponent) in enumerate(exponents.items()):
        found = [(row.weights, row.seconds) for row in rows if (row.way, row.dtype) == (way, dtype)]
        label = f"{way}, {dtype}" + (f": n^{exponent:.2f}" if exponent else "")
        colour, _ = plots.style(number)
        axes.plot(*zip(*found, strict=True), label=label, marker="o", color=colour)
    axes.set(xscale="log", yscale="log", xlabel="weights", ylabel="seconds, one thread")
    axes.legend()
    for suffix in (".svg", ".png"):
        plots.save(figure, report.stem, report.with_suffix(suffix))


def _print(rows: Sequence[Cell], exponents: dict[tuple[str, str], float | None]) -> None:
    print(f"exactly {SPARSITY:.0%} of all weights, one thread; MB: the most beside the weights and beside the masks")
    heads = ("seconds", "ns each", "MB", "share", "peer s", "peer MB", "faster")
    print(f"{'weights':>9} {'dtype':<9}" + "".join(f"{head:>9}" for head in heads))
    for row in rows:
        if row.way == PEER:
            continue
        peer = _peer_of(row, rows)
        cells = f"{row.seconds:9.3f}{row.seconds / row.weights * 1e9:9.2f}{_megabytes(row):9.1f}{row.beside:9.1%}"
        if peer:
            cells += f"{peer.seconds:9.2f}{_megabytes(peer):9.0f}{peer.seconds / row.seconds:8.0f}x"
        print(f"{row.weights:9.0e} {row.dtype:<9}{cells}")
    for (way, dtype), exponent in exponents.items():
        if exponent:
            print(f"{way}, {dtype}: seconds ~ weights^{exponent:.3f}")
    print(f"aims: at least {FASTER:.0f}x at 1e+08, at most {BESIDE:.0%} beside")


def _megabytes(row: Cell) -> float:
    return (row.peak_bytes - row.mask_bytes) / 1e6


if __name__ == "__main__":
    typer.run(main)
