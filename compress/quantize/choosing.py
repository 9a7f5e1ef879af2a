"""`quantize`: int8 candidates of a file, measured side by side; the fastest that loses little enough is kept."""

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from compress.errors import CompressError
from compress.export import latency
from compress.export.reading_back import require_same_elsewhere
from compress.files.atomic import atomic, require_replaceable
from compress.quantize import candidates
from compress.quantize.calibration import Feeds, Samples, fixed_batch, samples_of
from compress.quantize.prepared import Prepared, prepare
from compress.quantize.settings import METHODS, Kind, Method, Quantization
from compress.ranking import MetricKind, default_of, drop, present
from compress.results import LatencyResult, Metric, QuantizationResult, QuantizationTrial

_FLOAT = "float"

_SLOWER = 1.05
"""Of the float file's time: what `auto` takes for slower, and not for noise."""

_WORTH = 0.95
"""Of the float file's bytes or time: what int8 has to come down to, at least."""

_SECONDS = 2.0
"""For timing all candidates."""

Evaluate = Callable[[Path], Metric]
"""The metric of an ONNX file, on held-out training data."""


@dataclass(frozen=True)
class Quantized:
    """The result for a file: `path` is int8, or None if the float file is kept; `entry` has what was measured.

    int8 is not equal to its float file, and nothing of it is proven.
    """

    path: Path | None
    entry: QuantizationResult = field(repr=False)

    @property
    def why(self) -> str:
        """In one sentence, why this candidate is kept, or none."""
        return self.entry["why"]

    @property
    def refused(self) -> str | None:
        return self.why if self.path is None else None


def quantize(
    source: Path,
    out: Path,
    feeds: Feeds,
    wanted: Quantization,
    evaluate: Evaluate,
    *,
    ranked: MetricKind | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    threads: int = 1,
) -> Quantized:
    """Make int8 of the ONNX file `source`, and keep it as `out` if it is worth it.

    Args:
        feeds: gives calibration data from the start at each call, batch by batch: arrays by the names of the file's
            inputs, as the network gets them.
        evaluate: the metric of an ONNX file on held-out training data.
        ranked: which of its figures `max_drop` is about; the accuracy where there is one, or else the loss, if absent.
        batch_sizes, threads: what is timed, in onnxruntime.

    Returns:
        Which candidate is kept and why. Without one, `out` is not written.

    Raises:
        InputError: the file, the calibration data or a pattern of `exclude` is wrong, or there is nothing to quantize.
        ProofError: a fresh process computes something else with the int8 file.
        OutputError: `out` cannot be written.
    """
    require_replaceable(out)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(source, wanted.exclude, Path(scratch))
        samples = samples_of(feeds, wanted.calibration.samples, prepared.inputs, source)
        trials = _Trials(prepared, samples, wanted, evaluate, ranked, Path(scratch))
        trials.time(batch_sizes, threads)
        best, why = trials.choice()
        if best is not None:
            require_same_elsewhere(best.path, [samples.first], out.name)
            out.parent.mkdir(parents=True, exist_ok=True)  # as the files of other commands
            with atomic(out) as temporary:
                shutil.copyfile(best.path, temporary)
        return Quantized(None if best is None else out, trials.entry(best, why))


@dataclass
class _Candidate:
    """A kind of int8: its file, and what was measured of it; or a note of what failed.

    ratios: of its time to that of the float file, by batch size.
    """

    kind: Kind
    method: Method | None
    path: Path
    metric: Metric = field(default_factory=dict)
    latency: Mapping[str, LatencyResult] = field(default_factory=dict)
    note: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind} ({self.method})" if self.method else self.kind

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    @property
    def time(self) -> float:
        """Of the float file's time: the geometric mean over the batch sizes."""
        return math.exp(fmean(math.log(entry["ratio"]) for entry in self.latency.values()))

    def entry(self) -> QuantizationTrial:
        found: QuantizationTrial = {"kind": self.kind}
        if self.method is not None:
            found["method"] = self.method
        if self.note is not None:
            return {**found, "note": self.note}
        return {**found, "bytes": self.bytes, "metric": self.metric, "latency_ms": dict(self.latency)}


class _Trials:
    """The candidates of one file."""

    def __init__(
        self,
        prepared: Prepared,
        samples: Samples,
        wanted: Quantization,
        evaluate: Evaluate,
        ranked: MetricKind | None,
        scratch: Path,
    ) -> None:
        self._prepared, self._samples, self._wanted = prepared, samples, wanted
        self._evaluate, self._scratch = evaluate, scratch
        self._before = evaluate(prepared.source)
        self._ranked = present(ranked or default_of(self._before), self._before)
        self._tried: list[_Candidate] = []
        method = wanted.calibration.method
        if wanted.kind in ("auto", "static"):
            first = self._try("static", method)
            # Methods change what is lost, and not the time.
            if wanted.kind == "auto" and first.note is None and not self._holds(first):
                for other in METHODS:
                    if other != method:
                        self._try("static", other)
        if wanted.kind in ("auto", "dynamic"):
            self._try("dynamic", None)

    def _try(self, kind: Kind, method: Method | None) -> _Candidate:
        """Make a candidate and measure its metric; a failure is noted."""
        found = _Candidate(kind, method, self._scratch / f"{kind}-{method}.onnx")
        self._tried.append(found)
        try:
            if method is None:
                candidates.dynamic(self._prepared, found.path, self._wanted.per_channel)
            else:
                candidates.static(self._prepared, found.path, self._samples, method, self._wanted.per_channel)
            found.metric = self._evaluate(found.path)
        except CompressError as error:
            found.note = str(error).replace(str(found.path), "its file")
        return found

    @property
    def _ran(self) -> list[_Candidate]:
        return [one for one in self._tried if one.note is None]

    def _drop(self, candidate: _Candidate) -> float:
        return drop(self._before, candidate.metric, self._ranked)

    def _holds(self, candidate: _Candidate) -> bool:
        return self._drop(candidate) <= self._wanted.max_drop

    def _is_worth_it(self, candidate: _Candidate) -> bool:
        smaller = candidate.bytes <= _WORTH * self._prepared.source.stat().st_size
        slower = candidate.time > _SLOWER and self._wanted.kind == "auto"
        return (smaller or candidate.time <= _WORTH) and not slower

    def time(self, batch_sizes: Sequence[int], threads: int) -> None:
        """Time the float file and all candidates in turns."""
        if not self._ran:
            return
        only = fixed_batch(self._prepared.inputs)
        files = {_FLOAT: self._prepared.source, **{one.name: one.path for one in self._ran}}
        timings = latency.measure(
            files,
            batch_sizes=list(batch_sizes) if only is None else [only],
            sizes=self._samples.sizes,
            threads=threads,
            seconds=_SECONDS,
        )
        timed = timings.document(_FLOAT)["models"]
        for one in self._ran:
            one.latency = timed[one.name]

    def choice(self) -> tuple[_Candidate | None, str]:
        """The candidate that is kept, if any, and why."""
        bound = f"{self._wanted.max_drop:g} {self._ranked.unit_of_drop}"
        good = [one for one in self._ran if self._holds(one)]
        worth = sorted((one for one in good if self._is_worth_it(one)), key=lambda one: one.time)
        if worth:
            best, others = worth[0], [one for one in self._tried if one is not worth[0]]
            first = "the fastest" if len(self._tried) > 1 else "the kind that was asked for, and"
            rest = f"; {'; '.join(map(self._words, others))}" if others else ""
            return best, f"{best.name} is {first} within {bound}: {self._figures(best)}{rest}"
        if not self._ran:
            why = "no kind of int8 can be made of it"
        elif not good:
            why = f"every kind of int8 loses more than {bound}"
        else:
            why = f"every kind of int8 within {bound} is slower, or hardly faster or smaller"
        return None, f"the float file is kept, because {why}: {'; '.join(map(self._words, self._tried))}"

    def _words(self, candidate: _Candidate) -> str:
        return f"{candidate.name}: {candidate.note or self._figures(candidate)}"

    def _figures(self, candidate: _Candidate) -> str:
        lost, of = self._drop(candidate), self._prepared.source.stat().st_size
        change = round(-lost if self._ranked.larger else lost, 2) + 0.0  # -0.0 is 0
        changed = f"{change:+.2f} {self._ranked.unit_of_drop}"
        return f"{candidate.time:.2f} of the float file's time, {candidate.bytes / of:.2f} of its bytes, {changed}"

    def entry(self, best: _Candidate | None, why: str) -> QuantizationResult:
        found: QuantizationResult = {
            "per_channel": self._wanted.per_channel,
            "excluded": list(self._prepared.excluded),
            "float_metric": self._before,
            "tried": [one.entry() for one in self._tried],
            "why": why,
        }
        if best is not None:
            found["kind"] = best.kind
            if best.method is not None:
                found["method"] = best.method
        return found
