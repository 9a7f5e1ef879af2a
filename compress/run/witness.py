"""Check that compared figures belong together: same data, and equal figures for equal networks."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.batches import Pairs, samples_along, tensors_of_target
from compress.errors import ProofError, RunError
from compress.inputs import Inputs, inputs_of
from compress.proof.outputs import outputs_of
from compress.results import EvaluatedData
from compress.wording import count_of

SIZE = 32
"""Bytes of a digest."""


@dataclass
class Evaluated:
    """The data of one evaluation, independent of the order and the batches of its samples.

    digest: the sum of the samples' hashes; a changed, missing or repeated sample changes it.
    """

    samples: int = 0
    digest: int = 0

    def add(self, inputs: object, targets: object) -> None:
        given = inputs_of(inputs, "test data")
        self.samples += given.rows
        for parts in _samples(given, targets):
            found = hashlib.blake2b(digest_size=SIZE)
            for part in parts:
                found.update(part)
            self.digest = (self.digest + int.from_bytes(found.digest())) % 256**SIZE

    def __str__(self) -> str:
        return f"{count_of(self.samples, 'sample')} ({self.document()['digest'][:8]})"

    def document(self) -> EvaluatedData:
        """The entry of results.json."""
        return {"samples": self.samples, "digest": self.digest.to_bytes(SIZE).hex()}


class Witness:
    """Watches all evaluations of a run; a part of its checkpoints, since stages may precede an interruption."""

    def __init__(self) -> None:
        self.first: Evaluated | None = None

    @contextmanager
    def evaluation(self, batches: Callable[[], Pairs]) -> Iterator[Callable[[], Pairs]]:
        """`batches`, watched during an evaluation.

        Raises:
            RunError: the samples differ from those of the first evaluation.
        """
        found = Evaluated()

        def watched() -> Iterator[tuple[Any, Any]]:
            for inputs, targets in batches():
                found.add(inputs, targets)
                yield inputs, targets

        yield watched
        self.first = self.first or found
        if found != self.first:
            before, now = (
                f"{count_of(each.samples, 'sample')} ({each.document()['digest'][:8]})" for each in (self.first, found)
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


def _samples(given: Inputs, targets: object) -> Sequence[tuple[memoryview, ...]]:
    """The bytes of each sample's inputs and targets, or of the whole batch if targets do not match samples.

    An input that is the same for all samples is a part of each.
    """
    parts = []
    for tensor in given.tensors:
        along = given.batch_dim_of(tensor)
        parts.append(_rows(tensor, along) if along is not None else _rows(tensor[None], 0) * given.rows)
    parts += [_rows(tensor, samples_along(tensor, given) or 0) for tensor in tensors_of_target(targets)]
    if all(len(part) == given.rows for part in parts):
        return list(zip(*parts, strict=True))
    return [tuple(row for part in parts for row in part)]


def _rows(tensor: Tensor, along: int) -> list[memoryview]:
    found = tensor.detach().cpu()
    if not found.numel():
        return []
    rows = found.movedim(along, 0).reshape(found.shape[along], -1) if found.dim() else found.reshape(1, 1)
    return [memoryview(row) for row in rows.contiguous().view(torch.uint8).numpy()]


_OTHERS = 1e-3
"""What other metrics than the loss and the accuracy may differ by in addition, relative to their value."""


class Reach:
    """How far figures of networks that are equal within `tolerance` may differ: a `seen` of an evaluation.

    Outputs are equal relative to their largest magnitude, which bounds the difference of the loss. The best of a
    sample's scores may change if two are nearly equal.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._scale = 1.0
        self._samples, self._places, self._undecided = 0, 0, 0

    def __call__(self, output: object, target: object) -> None:
        tensors = [tensor for tensor in outputs_of(output).tensors.values() if tensor.numel()]
        self._samples += next((len(tensor) for tensor in tensors if tensor.dim()), 0)
        for tensor in tensors:
            if tensor.is_floating_point():
                self._add(tensor)

    def _add(self, output: Tensor) -> None:
        scale = float(output.abs().max())
        self._scale = max(self._scale, scale)
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
            if name not in ("loss", "perplexity"):
                allowed += self._undecided / max(1, self._places) + (own / max(1, self._samples))
            if not own and name not in ("loss", "accuracy"):
                # Macro averages and ranks weigh single samples differently, and a variance may be small.
                allowed += _OTHERS * max(1.0, abs(value))
            if abs(value - slim[name]) > allowed:
                raise ProofError(
                    f"masked and slim are proven equal, but their {name} is {value:.6g} and {slim[name]:.6g} on the "
                    f"same {count_of(self._samples, 'sample')}; the allowed difference is {allowed:.2g}; no results "
                    "are written. A metric must depend only on output and target; if it does, please report this."
                )
