"""`quantize`: int8 candidates of a file, measured side by side; the fastest that loses little enough is kept."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from compress.export.reading_back import require_same_elsewhere
from compress.files.atomic import atomic
from compress.quantize.calibration import Feeds, samples_of
from compress.quantize.prepared import prepare
from compress.quantize.settings import Kind, Method, Quantization
from compress.results import LatencyResult, Metric

_FLOAT = "float"

_SLOWER = 1.05
"""Of the float file's time: what `auto` takes for slower, and not for noise."""

_WORTH = 0.95
"""Of the float file's bytes or time: what int8 has to come down to, at least."""

_SECONDS = 2.0
"""For timing all candidates."""

Evaluate = Callable[[Path], Metric]
"""The metric of an ONNX file, on held-out training data."""


class Tried(TypedDict):
    """A candidate; one that failed has a note and no figures."""

    kind: Kind
    method: NotRequired[Method]
    bytes: NotRequired[int]
    metric: NotRequired[Metric]
    latency_ms: NotRequired[dict[str, LatencyResult]]
    note: NotRequired[str]


class Entry(TypedDict):
    """As results.json has it. kind and method: of what is kept; without them, the float file stays."""

    kind: NotRequired[Kind]
    method: NotRequired[Method]
    per_channel: bool
    excluded: list[str]
    float_metric: Metric
    metric: NotRequired[Metric]
    tried: list[Tried]
    why: str


@dataclass(frozen=True)
class Quantized:
    """What has become of a file: `path` is int8, or None where the float file stays; `entry` has all that was measured.

    Metrics are of held-out training data. int8 is not equal to its float file, and nothing of it is proven.
    """

    path: Path | None
    entry: Entry = field(repr=False)

    @property
    def why(self) -> str:
        """In one sentence, why this candidate is kept, or none."""
        return self.entry["why"]

    @property
    def refused(self) -> str | None:
        return self.why if self.path is None else None


@dataclass(frozen=True)
class _Candidate:
    """One that onnxruntime has made and run."""

    kind: Kind
    method: Method | None
    path: Path
    metric: Metric

    @property
    def name(self) -> str:
        return f"{self.kind} ({self.method})" if self.method else self.kind


def quantize(
    source: Path,
    out: Path,
    feeds: Feeds,
    wanted: Quantization,
    evaluate: Evaluate,
    *,
    batch_sizes: Sequence[int] = (1, 32),
    threads: int = 1,
) -> Quantized:
    """Make int8 of the ONNX file `source`, and keep it as `out` if it is worth it.

    Args:
        feeds: gives calibration data from the start at each call, batch by batch: arrays by the names of the file's
            inputs, as the network gets them.
        evaluate: the metric of an ONNX file on held-out training data; `max_drop` is about its accuracy, or its loss.
        batch_sizes, threads: what is timed, in onnxruntime.

    Returns:
        Which candidate is kept and why. Without one, `out` is not written.

    Raises:
        InputError: the file, the calibration data or a pattern of `exclude` is wrong, or there is nothing to quantize.
        ProofError: a fresh process computes something else with the int8 file.
        OutputError: `out` cannot be written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(source, wanted.exclude, Path(scratch))
        samples = samples_of(feeds, wanted.calibration.samples, prepared.inputs, source)
        trial = _Trial(prepared, samples, wanted, evaluate, Path(scratch))
        trial.run()
        timings = trial.timed(batch_sizes, threads)
        best, why = trial.choose(timings)
        entry = trial.entry(best, why, timings)
        if best is None:
            return Quantized(None, entry)
        require_same_elsewhere(best.path, [samples.first], out.name)
        with atomic(out) as temporary:
            shutil.copyfile(best.path, temporary)
    return Quantized(out, entry)


def drop(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """What `after` has lost: points of accuracy, or percent of the loss; below 0 where it has gained.

    Where the loss was 0, as of a file compared with itself, it is percent of 1.
    """
    if "accuracy" in before:
        return 100 * (before["accuracy"] - after["accuracy"])
    return 100 * (after["loss"] - before["loss"]) / (abs(before["loss"]) or 1.0)


def unit(metric: Mapping[str, float]) -> str:
    return "points of accuracy" if "accuracy" in metric else "% of the loss"
