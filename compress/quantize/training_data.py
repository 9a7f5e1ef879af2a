"""`Split`: samples in two parts, for calibration and for comparing candidates."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from compress.batches import Pair, Pairs, pair_of
from compress.errors import DataError, TrainingError
from compress.export.onnx_network import Feed, OnnxNetwork
from compress.quantize.calibration import Feeds
from compress.results import Metric
from compress.tasks import Task, prediction
from compress.train import metrics

HELD_OUT = 5000
"""Samples that candidates are compared on, at most: an accuracy on so many is known to a few tenths of a point."""


@dataclass(frozen=True)
class Split:
    """The first `samples` training samples calibrate; up to 5,000 others decide: of the validation part, or else of the
    training part, or the same ones where there are no others.

    batches: gives all training batches from the start at each call; a loader that shuffles gets the same seed each
        time.
    validation: the same of the validation part, where there is one.
    """

    batches: Callable[[], Pairs]
    samples: int
    validation: Callable[[], Pairs] | None = None

    def feeds(self, file: Path) -> Feeds:
        """The batches as the inputs of an ONNX file."""
        network = OnnxNetwork(file)

        def feeds() -> Iterator[Feed]:
            return (network.feed(given) for given, _ in _all(self.batches))

        return feeds

    def held_out(self) -> Iterator[Pair]:
        seen = 0
        for given, target in self._others():
            yield given, target
            seen += given.rows
            if seen >= HELD_OUT:
                return

    def metric(self, file: Path, task: Task, like: object = None) -> Metric:
        """The metric of an ONNX file on the samples that are held out; `like` as for `OnnxNetwork`."""
        return metrics.evaluate(OnnxNetwork(file, like=like), self.held_out, task, partial=True)

    def difference(self, file: Path, reference: Path) -> Metric:
        """As the loss, the mean squared difference of the two files' predictions, relative to the latter's variance.

        Raises:
            DataError: there is no sample.
            TrainingError: it is not finite.
        """
        one, other = OnnxNetwork(file), OnnxNetwork(reference)
        values, error, total, squares = 0, 0.0, 0.0, 0.0
        for given, _ in self.held_out():
            found, wanted = (prediction(given.call(network)).double() for network in (one, other))
            values, error = values + wanted.numel(), error + float((found - wanted).square().sum())
            total, squares = total + float(wanted.sum()), squares + float(wanted.square().sum())
        if not values:
            raise DataError("No sample to compare on: the data are empty.")
        variance = squares / values - (total / values) ** 2
        loss = error / values / (variance or 1.0)
        if not loss < float("inf"):
            raise TrainingError("Its outputs are not finite.")
        return {"loss": loss}

    def _others(self) -> Iterator[Pair]:
        if self.validation is not None:
            return _all(self.validation)
        rest = self._without(self.samples)
        first = next(rest, None)
        return _all(self.batches) if first is None else chain([first], rest)

    def _without(self, samples: int) -> Iterator[Pair]:
        seen = 0
        for given, target in _all(self.batches):
            if seen >= samples:
                yield given, target
            seen += given.rows


def _all(wanted: Callable[[], Pairs]) -> Iterator[Pair]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        batches = iter(wanted())
        first = [pair_of(batch) for _, batch in zip(range(1), batches, strict=False)]
    yield from first
    yield from map(pair_of, batches)
