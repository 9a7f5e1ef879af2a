"""Check that compared figures belong together: same data, and equal figures for equal networks."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.errors import ProofError, RunError
from compress.results import EvaluatedData

Pairs = Callable[[], Iterable[tuple[Tensor, Tensor]]]

SIZE = 32
"""Bytes of a digest."""


@dataclass
class Evaluated:
    """The data of one evaluation, independent of the order and the batches of its samples.

    digest: the sum of the samples' hashes; a changed, missing or repeated sample changes it.
    """

    samples: int = 0
    digest: int = 0

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        self.samples += len(inputs)
        for parts in _samples(inputs, targets):
            found = hashlib.blake2b(digest_size=SIZE)
            for part in parts:
                found.update(part)
            self.digest = (self.digest + int.from_bytes(found.digest())) % 256**SIZE

    def __str__(self) -> str:
        return f"{self.samples:,} samples ({self.document()['digest'][:8]})"

    def document(self) -> EvaluatedData:
        """The entry of results.json."""
        return {"samples": self.samples, "digest": self.digest.to_bytes(SIZE).hex()}


class Witness:
    """Watches all evaluations of a run; a part of its checkpoints, since stages may precede an interruption."""

    def __init__(self) -> None:
        self.first: Evaluated | None = None

    @contextmanager
    def evaluation(self, batches: Pairs) -> Iterator[Pairs]:
        """`batches`, watched during an evaluation.

        Raises:
            RunError: the samples differ from those of the first evaluation.
        """
        found = Evaluated()

        def watched() -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, targets in batches():
                found.add(inputs, targets)
                yield inputs, targets

        yield watched
        self.first = self.first or found
        if found != self.first:
            before, now = (
                f"{each.samples:,} samples ({each.document()['digest'][:8]})" for each in (self.first, found)
            )
            raise RunError(
                f"The test data changed between two evaluations: {before} before and {now} now, so that figures of "
                f"dense, masked and slim would not be comparable. Make the test loader return the same samples in "
                f"every pass: without random augmentation, and without drop_last if it shuffles."
            )

    def document(self) -> EvaluatedData:
        """The data of all evaluations; there must have been one."""
        assert self.first is not None
        return self.first.document()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.first is None else dict(self.first.document())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = Evaluated(state["samples"], int(state["digest"], 16)) if state else None


def _samples(inputs: Tensor, targets: Tensor) -> Iterable[tuple[memoryview, ...]]:
    """The bytes of each sample's input and target, or of the whole batch if targets do not match samples."""
    parts = [_rows(tensor) for tensor in (inputs, targets)]
    if len(parts[0]) == len(parts[1]):
        return zip(*parts, strict=True)
    return [tuple(row for part in parts for row in part)]


def _rows(tensor: Tensor) -> list[memoryview]:
    found = tensor.detach().cpu().contiguous()
    if not found.numel():
        return []
    rows = found.reshape(len(found) if found.dim() else 1, -1)
    return [memoryview(row) for row in rows.view(torch.uint8).numpy()]


class Reach:
    """How far figures of networks that are equal within `tolerance` may differ: a `seen` of an evaluation.

    Outputs are equal relative to their largest magnitude, which bounds the difference of the loss. The best of a
    sample's scores may change if two are nearly equal.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._scale = 1.0
        self._samples, self._places, self._undecided = 0, 0, 0

    def __call__(self, output: Tensor, target: Tensor) -> None:
        if not output.numel():
            return
        scale = float(output.abs().max())
        self._scale = max(self._scale, scale)
        self._samples += len(output)
        if output.dim() > 1 and output.shape[1] > 1:
            best, second = output.topk(2, dim=1).values.unbind(1)
            self._places += best.numel()
            self._undecided += int((best - second <= 2 * self._tolerance * scale).sum())

    def require_agreement(self, masked: Mapping[str, float], slim: Mapping[str, float], *, own: bool) -> None:
        """
        Args:
            own: whether the other metrics are a user's own; metrics that count samples may differ by one of them.

        Raises:
            ProofError: a figure of the slim network differs from the masked network's.
        """
        for name, value in masked.items():
            allowed = 2 * self._tolerance * self._scale * max(1.0, abs(value))
            if name != "loss":
                allowed += self._undecided / max(1, self._places) + (own / max(1, self._samples))
            if abs(value - slim[name]) > allowed:
                raise ProofError(
                    f"masked and slim are proven equal, but their {name} is {value:.6g} and {slim[name]:.6g} on the "
                    f"same {self._samples:,} samples; the allowed difference is {allowed:.2g}; no results are "
                    f"written. A metric must depend only on output and target; if it does, please report this."
                )
