"""Measures latency in onnxruntime and torch, with the same conditions for all models, which run in turns.

A machine does not keep its speed: its clock, its caches and its other users change within seconds. Models that are
measured one after the other get different machines. Here every round runs every model, in a new random order, and
models are compared within a round.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.documents import LoadEntry, Timed
from compress.dynamic import BATCH_NAME
from compress.errors import InputError
from compress.evaluation_mode import evaluation_mode
from compress.export.interface import interface
from compress.export.machine_load import LoadMeter
from compress.export.onnx_reading import let_go, read_onnx
from compress.files.atomic import require_path
from compress.files.foreign import reading, reason
from compress.files.torchscript import require_no_torchscript
from compress.options import check, shown
from compress.results import LatencyResult, Load, Runtime
from compress.wording import because, missing

LEAST = 30
"""Runs of each model at the first batch size, however slow it is: headlines show that figure."""

Timeable = str | os.PathLike[str] | tuple[nn.Module, object]
"""An ONNX file, which onnxruntime runs, or a network and what it is called with, which torch runs."""

Run = Callable[[], object]

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run: percentiles and the minimum over `runs` runs."""

    p50: float
    p90: float
    p99: float
    min: float
    runs: int


@dataclass(frozen=True)
class Timings:
    """Every timed run, in milliseconds, as [rounds, runs in a round], by (model's name, batch size)."""

    threads: int
    milliseconds: Mapping[tuple[str, int], NDArray[np.float64]]
    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    load: Load | None = None  # None where the system does not tell

    def summary(self) -> dict[str, dict[str, Latency]]:
        """Latency by model's name and batch size, the latter as text, as JSON has it."""
        found: dict[str, dict[str, Latency]] = {}
        for (name, batch), times in self.milliseconds.items():
            p50, p90, p99 = np.percentile(times, [50, 90, 99]).tolist()
            found.setdefault(name, {})[str(batch)] = Latency(p50, p90, p99, float(times.min()), times.size)
        return found

    def quantiles(self, name: str, batch: int) -> list[float]:
        """From the shortest run to the longest, in 20 steps of 5 %."""
        return [float(f"{value:.5g}") for value in np.percentile(self.milliseconds[name, batch], np.arange(0, 101, 5))]

    def ratio(self, name: str, other: str, batch: int) -> float:
        """How many times as long `name` takes as `other`: the median over the rounds of (median / median)."""
        medians = [np.median(self.milliseconds[key, batch], axis=1) for key in (name, other)]
        return float(np.median(medians[0] / medians[1]))

    def document(self, reference: str) -> Timed:
        """The summary as JSON has it, with quantiles, and each model's `ratio` to the model called `reference`."""
        load: LoadEntry = {} if self.load is None else {"load": self.load}
        return {
            **load,
            "threads": self.threads,
            "runtimes": dict(self.runtimes),
            "models": {
                name: {batch: self._entry(name, batch, latency, reference) for batch, latency in batches.items()}
                for name, batches in self.summary().items()
            },
        }

    def _entry(self, name: str, batch: str, latency: Latency, reference: str) -> LatencyResult:
        return {
            "p50": latency.p50,
            "p90": latency.p90,
            "p99": latency.p99,
            "min": latency.min,
            "runs": latency.runs,
            "ratio": self.ratio(name, reference, int(batch)),
            "quantiles": self.quantiles(name, int(batch)),
        }


def measure(
    files: Mapping[str, Timeable],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    sizes: Mapping[str, int] | None = None,
    threads: int = 1,
    rounds: int = 30,
    seconds: float = 1.0,
    seed: int = 0,
) -> Timings:
    """Time ONNX files in onnxruntime and networks in torch, on the CPU, interleaved, after a warm-up.

    Args:
        files: by the model's name, the path of an ONNX file, or a pair of a network on the CPU and its example. A
            file's inputs are made up: floating-point numbers at random, any others 0; a network gets its example, with
            as many samples as asked for.
        batch_sizes: sizes of the dimension `batch`, or of the first one, where none has that name.
        sizes: those of other dimensions of ONNX files that vary, by name, such as {"length": 128}.
        threads: of the runtime, inside an operation; operations run one after the other.
        rounds: each runs every model at least once. Fast models run several times in a round.
        seconds: the rough total. Where `rounds` rounds take longer there are fewer, but at least 5; at the first batch
            size, every model runs at least 30 times.
        seed: of the random inputs and of the order.

    Raises:
        InputError: a file is missing, is not an ONNX model, or cannot take such a batch; no files; numbers below 1.
    """
    _require_arguments(files, batch_sizes, sizes)
    check("threads", threads, int, ge=1)
    check("rounds", rounds, int, ge=1)
    check("seconds", seconds, float, ge=0)
    check("seed", seed, int, ge=0)
    runtimes: dict[str, Runtime] = {}
    for name, model in files.items():
        runtimes[name] = "torch" if isinstance(model, tuple) else "onnxruntime"
        if not isinstance(model, tuple):
            require_path("files", model)
            require_file(model)
            let_go(read_onnx(model))  # which other files onnxruntime itself opens depends on its version
    rng = np.random.default_rng(seed)
    milliseconds: dict[tuple[str, int], NDArray[np.float64]] = {}
    meter = LoadMeter()
    with ExitStack() as stack:
        called = {name: _called(model, name, sizes or {}, threads, rng, stack) for name, model in files.items()}
        for batch in batch_sizes:
            runs = {name: at(batch) for name, at in called.items()}
            with reading(InputError, f"{_named(files)} cannot run a batch of {batch}"):
                least = LEAST if batch == batch_sizes[0] else 1
                with meter.measuring():
                    found = _interleaved(runs, rounds, seconds / len(batch_sizes), least, rng)
            milliseconds |= {(name, batch): times for name, times in found.items()}
    return Timings(threads, milliseconds, runtimes, meter.load)


def _require_arguments(files: object, batch_sizes: object, sizes: object) -> None:
    if not isinstance(files, Mapping) or not files:
        raise InputError(f"files: found {shown(files)}; expected a dict of models' names and paths, with one at least")
    for name in files:
        check("files, a name", name, str)
    if not isinstance(batch_sizes, list | tuple) or not batch_sizes:
        raise InputError(f"batch_sizes: found {shown(batch_sizes)}; expected a list of sizes, such as [1, 32]")
    for size in batch_sizes:
        check("batch_sizes", size, int, ge=1)
    if sizes is not None and not isinstance(sizes, Mapping):
        raise InputError(f"sizes: found {shown(sizes)}; expected sizes by name, such as {{'length': 128}}")
    for name, size in (sizes or {}).items():
        check(f"sizes, {name}", size, int, ge=1)


def _named(files: Mapping[str, Timeable]) -> str:
    """The models and what runs them, for an error's text."""
    paths = [str(model) for model in files.values() if not isinstance(model, tuple)]
    networks = [name for name, model in files.items() if isinstance(model, tuple)]
    parts = ((paths, "onnxruntime"), (networks, "torch"))
    return " or ".join(f"{', '.join(names)}: {runtime}" for names, runtime in parts if names)


def _called(
    model: Timeable, name: str, sizes: Mapping[str, int], threads: int, rng: np.random.Generator, stack: ExitStack
) -> Callable[[int], Run]:
    """What gives one run of the model at a batch size; `stack` gives back what the runs change."""
    if not isinstance(model, tuple):
        session = open_session(model, threads)

        def in_onnxruntime(batch: int) -> Run:
            feed = _feed(session, batch, sizes, model, rng)
            return lambda: session.run(None, feed)

        return in_onnxruntime
    network, example = model
    if not isinstance(network, nn.Module):
        raise InputError(f"files, {name}: found {shown(network)}; expected a network and its example")
    taken = interface(network, example)
    stack.enter_context(torch_threads(threads))
    stack.enter_context(evaluation_mode(network))

    def in_torch(batch: int) -> Run:
        given = taken.at({BATCH_NAME: batch})
        return lambda: given.call(network)

    return in_torch


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use this many threads inside an operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def open_session(path: str | os.PathLike[str], threads: int = 1) -> Any:
    """An onnxruntime.InferenceSession on the CPU, whose threads sleep while they have nothing to do.

    Raises:
        InputError: the file does not exist, or onnxruntime cannot run it.
    """
    import onnxruntime

    require_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors are raised anyway; its log has names from the file, with escape sequences
    # A thread that spins between two runs takes a core from whichever model is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise InputError(f"{path} is not an ONNX model that onnxruntime can run: {reason(error)}") from error


def require_file(path: str | os.PathLike[str]) -> None:
    """Raises InputError unless it is a file that can be read."""
    try:
        require_no_torchscript(Path(path))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(missing(Path(path), "name an ONNX model")) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {because(error)}; name an ONNX model") from None


def _feed(
    session: Any, batch: int, sizes: Mapping[str, int], path: object, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    inputs = session.get_inputs()
    # As in our files; in others, the first dimension is the batch.
    free = any(BATCH_NAME in value.shape for value in inputs)
    of_any_size = free or any(value.shape and not isinstance(value.shape[0], int) for value in inputs)
    feed: dict[str, NDArray[Any]] = {}
    named = {**sizes, BATCH_NAME: batch}
    for value in inputs:
        first = value.shape[0] if value.shape else None
        if not of_any_size and isinstance(first, int) and first != batch:
            raise InputError(f"{path}: the input {value.name!r} takes batches of {first} only, not {batch}")
        found = [
            size if isinstance(size, int) else named.get(size if place or free else BATCH_NAME)
            for place, size in enumerate(value.shape)
        ]
        if None in found:
            size = value.shape[found.index(None)]
            raise InputError(
                f"{path}: the input {value.name!r} has the shape {value.shape}; give its size {size!r}, such as "
                f"--sizes {size}=64, in Python sizes={{'{size}': 64}}"
            )
        if value.type not in DTYPES:
            raise InputError(
                f"{path}: the input {value.name!r} is a {value.type}; `compress bench` can only make numbers"
            )
        shape = [size for size in found if size is not None]
        # Zeros would be faster than numbers on some processors, but any other integer may be out of range.
        floats = "float" in value.type or "double" in value.type
        feed[value.name] = (rng.random(shape) if floats else np.zeros(shape)).astype(DTYPES[value.type])
    return feed


def _interleaved(
    runs: Mapping[str, Run], rounds: int, seconds: float, least: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds as [rounds, runs in a round] by name, of at least `least` runs."""
    sweep = sum(min(_time(run) for _ in range(2)) for run in runs.values()) / 1e3  # the warm-up, too
    rounds = min(rounds, max(5, int(seconds / (2 * sweep))))
    repeats = max(1, int(seconds / (rounds * sweep)) - 1, -(-least // rounds))
    times = {name: np.empty((rounds, repeats)) for name in runs}
    names = list(runs)
    with _no_garbage_collection():
        for index in range(rounds):
            for name in rng.permutation(names):
                run = runs[name]
                _time(run)  # not count_of: the caches still hold the model before
                for repeat in range(repeats):
                    times[name][index, repeat] = _time(run)
    return times


def _time(run: Run) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
