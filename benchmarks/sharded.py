"""Measures what it costs to prune weights that are spread over processes, and computes it for 7 to 700 billion weights.

    python benchmarks/sharded.py

Three things are measured here, with one thread, in the process's own processor time: a pass that counts, one that
marks, and a step of soft removal, each for an entry; the all-reduce of one histogram between 2 and 4 processes (gloo,
on this machine); and the whole choice over 1e11 entries, streamed: a block of 1e8 weights read a thousand times, whose
threshold is that of the block, by numpy. From these constants follows the table for 8, 64 and 512 processes; the time
of the all-reduce grows there as from 2 to 4 processes, by the same amount for each process more.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.distributed as dist
import typer
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from compress.remove.pruner import Pruner
from compress.remove.removals import Soft
from compress.run.provenance import cpu_name
from compress.select.choose import Keys, threshold_of
from compress.select.criteria.magnitude import magnitude
from compress.select.scores import Scores
from compress.shards import ALONE

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "sharded.json"
SPARSITY = 0.9
BLOCK = 10**8
HISTOGRAM = 8 << 16  # bytes
DTYPES = ("float32", "bfloat16")
PROCESSES, WEIGHTS = (8, 64, 512), (7 * 10**9, 70 * 10**9, 700 * 10**9)
TIES = 3
"""Histograms of positions, of 48 bits, where equal scores are divided."""


@dataclass(frozen=True)
class Constants:
    """Nanoseconds for each entry of a process: of a pass that counts, of one that marks, and of a step."""

    dtype: str
    count: float
    mark: float
    step: float

    @property
    def passes(self) -> int:
        return int(getattr(torch, self.dtype).itemsize) // 2

    @property
    def state(self) -> int:
        """Bytes for each entry: mask and start of the parameter's type, the set, and the latest choice."""
        return 2 * int(getattr(torch, self.dtype).itemsize) + 2


def main(
    streamed: Annotated[int, typer.Option(min=BLOCK, help="Entries of the choice that is run.")] = 10**11,
    quick: Annotated[bool, typer.Option("--quick", help="A thousandth of the entries.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Measure the constants and the streamed choice; print the table and write it as JSON."""
    torch.set_num_threads(1)
    constants = [_constants(dtype, BLOCK // (1000 if quick else 10)) for dtype in DTYPES]
    reduced = {count: _all_reduce(count) for count in (2, 4)}
    chosen = [_streamed("bfloat16", streamed // (1000 if quick else 1), BLOCK // (1000 if quick else 1))]
    chosen += [_streamed("float32", streamed // (1000 if quick else 10), BLOCK // (1000 if quick else 1))]
    rows = [
        _row(weights, processes, each, reduced) for each in constants for weights in WEIGHTS for processes in PROCESSES
    ]
    document: dict[str, Any] = {
        "machine": {"cpu": cpu_name(), "threads": 1},
        "versions": {name: version(name) for name in ("softprune", "torch")},
        "constants_ns": [asdict(each) for each in constants],
        "all_reduce_seconds": reduced,
        "streamed": chosen,
        "rows": rows,
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    _print(document)


def _constants(dtype: str, size: int) -> Constants:
    weight = _weights(size, dtype)
    keys = Keys(Scores(magnitude, weight), "weights", None, weight.dtype, ALONE)
    bits = 8 * weight.itemsize
    passes = weight.itemsize // 2
    count = _seconds(lambda: threshold_of([keys], size // 2, bits, ALONE)) / passes
    mark = _seconds(lambda: keys.below(int(torch.tensor(0.02).to(weight.dtype).view(_INTEGER[dtype])), 0))
    layer = nn.Linear(1000, size // 1000, bias=False)
    layer.weight = nn.Parameter(weight.view(size // 1000, 1000))
    pruner = Pruner(layer, sparsity=SPARSITY, removal=Soft(steps=1000))
    step = _seconds(pruner.step)
    return Constants(dtype, *(seconds / size * 1e9 for seconds in (count, mark, step)))


_INTEGER = {"float32": torch.int32, "bfloat16": torch.int16}


def _weights(size: int, dtype: str) -> Tensor:
    torch.manual_seed(0)
    return torch.empty(size, dtype=getattr(torch, dtype)).normal_(0, 0.02)


def _seconds(run: Callable[[], object], rounds: int = 5) -> float:
    """The median of processor time."""
    found = []
    for _ in range(rounds + 1):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return statistics.median(found[1:])


def _all_reduce(processes: int) -> float:
    """Seconds of the all-reduce of one histogram, the shortest of 50: on few cores, others wait for their turn."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_reduce, (processes, folder), nprocs=processes)  # type: ignore[no-untyped-call]
        return float((Path(folder) / "seconds").read_text(encoding="utf-8"))


def _reduce(rank: int, processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes)
    histogram = torch.zeros(1 << 16, dtype=torch.int64)
    found = []
    for _ in range(51):
        started = time.perf_counter()
        dist.all_reduce(histogram)
        found.append(time.perf_counter() - started)
    if not rank:
        (Path(folder) / "seconds").write_text(repr(min(found[1:])), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _streamed(dtype: str, entries: int, block: int) -> dict[str, Any]:
    """The threshold of `entries` magnitudes, checked against numpy's partition of the block that they repeat."""
    weight = _weights(block, dtype)
    repeats = entries // block
    count = round(SPARSITY * entries)
    keys = [Keys(Scores(magnitude, weight), "weights", None, weight.dtype, ALONE)] * repeats
    started, computed = time.perf_counter(), time.process_time()
    found = threshold_of(keys, count, 8 * weight.itemsize, ALONE)
    seconds, wall = time.process_time() - computed, time.perf_counter() - started
    key = torch.tensor(found.key, dtype=_INTEGER[dtype]).view(weight.dtype)
    magnitudes = weight.abs().float().numpy()
    rank = -(-count // repeats) - 1
    assert float(key) == np.partition(magnitudes, rank)[rank]
    below = int((magnitudes < float(key)).sum()) * repeats
    assert found.ties == count - below
    print(f"{entries:.0e} {dtype}: {seconds:.1f} s, {wall:.1f} s passed", file=sys.stderr)
    return {"dtype": dtype, "entries": repeats * block, "seconds": seconds, "wall_seconds": wall}


def _row(weights: int, processes: int, constants: Constants, reduced: dict[int, float]) -> dict[str, Any]:
    here = weights / processes
    histograms = constants.passes + TIES
    each = reduced[2] + (reduced[4] - reduced[2]) / 2 * (processes - 2)
    # Counting, counting ties, finding and counting their positions in one tensor, and marking.
    computed = here * (constants.count * (constants.passes + 1) + constants.mark) / 1e9
    return {
        "dtype": constants.dtype,
        "weights": weights,
        "processes": processes,
        "state_bytes": here * constants.state,
        "sent_bytes": histograms * HISTOGRAM * 2 * (processes - 1) / processes,
        "choice_seconds": computed + histograms * each,
        "reduce_seconds": histograms * each,
        "step_seconds": here * constants.step / 1e9,
    }


def _print(document: dict[str, Any]) -> None:
    for each in document["constants_ns"]:
        print(f"{each['dtype']}: count {each['count']:.2f} ns, mark {each['mark']:.2f} ns, step {each['step']:.2f} ns")
    for count, seconds in document["all_reduce_seconds"].items():
        print(f"all-reduce between {count}: {1e3 * seconds:.1f} ms")
    for row in document["rows"]:
        figures = (row["state_bytes"] / 1e9, row["sent_bytes"] / 1e6, row["choice_seconds"], row["step_seconds"])
        where = f"{row['dtype']:<9}{row['weights'] / 1e9:5.0f}e9 on {row['processes']:3}"
        print(where + ": {:.2f} GB, {:.2f} MB and {:.2f} s a choice, {:.3f} s a step".format(*figures))


if __name__ == "__main__":
    typer.run(main)
