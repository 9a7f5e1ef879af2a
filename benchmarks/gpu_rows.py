"""What the sections of gpu.py share: rows, the place and size of a measurement, and times that are taken in turns."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One result. expected: None for a figure, which nothing is expected of. passed: None where there is no verdict."""

    name: str
    result: Any
    expected: Any = None
    passed: bool | None = None

    def document(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


def equal(name: str, result: Any, expected: Any) -> Row:
    return Row(name, result, expected, result == expected)


def at_most(name: str, result: float, bound: float) -> Row:
    return Row(name, result, f"at most {bound:g}", result <= bound)


class NeedsCudaError(Exception):
    """This cannot be done on a CPU."""

    def __init__(self) -> None:
        super().__init__("needs a CUDA device")


@dataclass(frozen=True)
class Case:
    """Where and how large everything is measured."""

    device: torch.device
    quick: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def size(self, full: Any, quick: Any) -> Any:
        return quick if self.quick else full

    def require_gpu(self) -> None:
        if not self.on_gpu:
            raise NeedsCudaError

    @property
    def tolerance(self) -> float:
        """Of outputs that two programs compute, relative to the largest; a GPU may convolve with 10 bits (TF32)."""
        return 1e-2 if self.on_gpu else 1e-4

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def draw(self, *shape: int, seed: int = 0) -> Tensor:
        """Normally distributed numbers, the same on every device."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(self.device)


Section = Callable[[Case], Iterator[Row]]


def milliseconds(
    case: Case, ways: Mapping[str, Callable[[], object]], rounds: int, runs: int, warm: int = 3
) -> dict[str, list[float]]:
    """The milliseconds of a run, by way, one number a round: in each round every way has `runs` runs, after `warm`
    runs that do not count.

    On a GPU by CUDA events, so that the GPU is never waited for between two ways.
    """
    for run in ways.values():
        for _ in range(warm):
            run()
    case.synchronize()
    stamps: dict[str, list[tuple[Any, Any]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            started = _stamp(case)
            for _ in range(runs):
                run()
            stamps[way].append((started, _stamp(case)))
    case.synchronize()
    return {way: [_between(*pair) / runs for pair in pairs] for way, pairs in stamps.items()}


def ratio(found: Mapping[str, list[float]], way: str, other: str) -> float:
    """The median over the rounds of the round's own ratio."""
    return median(mine / theirs for mine, theirs in zip(found[way], found[other], strict=True))


def _stamp(case: Case) -> Any:
    if not case.on_gpu:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _between(started: Any, ended: Any) -> float:
    return 1000 * (ended - started) if isinstance(started, float) else float(started.elapsed_time(ended))
