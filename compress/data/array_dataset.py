"""Data sets of arrays in memory, of any number, shape and dtype: tables, series, tokens, and what an .npz file holds.

Images have their own class (`compress.data.dataset.Dataset`), since they are kept as bytes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from compress.batches import Attributed, Batches, Subset
from compress.data.dataset import LABEL, batch_rows, no_part
from compress.data.preparation import Preparation
from compress.data.validation import held_out_count
from compress.errors import DataError
from compress.inputs import Inputs
from compress.tasks import Task, wants_inputs, word_of
from compress.wording import count_of

ONLY = "input"
"""The name of the input that is passed by position, whatever the network's forward calls it."""


@dataclass(frozen=True, eq=False)
class Samples:
    """One part of a data set.

    inputs: [N, ...] by the keyword of the network's forward; `ONLY`, if it is there, is passed by position.
    targets: [N, ...], or None where the inputs themselves are the targets.
    attributes: further classes of the samples by name, int64 [N].

    The tensors may be views of files that are mapped into memory (`numpy.memmap`): rows are read when they are used.
    """

    inputs: Mapping[str, Tensor]
    targets: Tensor | None
    attributes: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: slice | Tensor) -> Self:
        targets = None if self.targets is None else self.targets[rows]
        inputs, attributes = (
            {name: tensor[rows] for name, tensor in of.items()} for of in (self.inputs, self.attributes)
        )
        return replace(self, inputs=inputs, targets=targets, attributes=attributes)

    def read(self, rows: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """What the network is called with for these rows (int64 [n]), and their targets."""
        targets = None if self.targets is None else self.targets.index_select(0, rows)
        return {name: tensor.index_select(0, rows) for name, tensor in self.inputs.items()}, targets

    @property
    def tensors(self) -> list[Tensor]:
        targets = [] if self.targets is None else [self.targets]
        return [*self.inputs.values(), *targets, *self.attributes.values()]


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Samples in memory, or in files mapped into it, as `compress.data.dataset.TrainingData`.

    classes: of integer targets; None where the targets are not classes.
    preparation: how a raw sample becomes what the network is called with.
    sha256: of all tensors of train, validation and test, as they are in memory.
    overlap: how many training samples before another one share targets with it, as the windows of a series do.
    """

    name: str
    train: Samples
    test: Samples
    preparation: Preparation
    sha256: str
    validation: Samples | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    note: str | None = None
    overlap: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample of the first input."""
        return tuple(next(iter(self.train.inputs.values())).shape[1:])

    @property
    def example(self) -> Inputs:
        return _called(self.train.read(torch.arange(2) % len(self.train))[0])

    def count(self, subset: Subset) -> int | None:
        samples = self._part(subset)
        return None if samples is None else len(samples)

    @property
    def attributes(self) -> Mapping[str, int]:
        targets, classes = self.train.targets, self.classes
        label = {LABEL: classes} if classes is not None and targets is not None and targets.ndim == 1 else {}
        return {**label, **{name: int(of.max()) + 1 for name, of in self.train.attributes.items()}}

    def batches(
        self,
        subset: Subset,
        size: int,
        task: Task,
        device: torch.device | str = "cpu",
        *,
        attributes: Sequence[str] = (),
    ) -> Batches:
        """Batches of `size` samples with the targets of `task`.

        For `anomaly`, targets are {"input": the input, "anomaly": [n], 1 for an anomaly}, and the training part has no
        sample that is labelled as one. Raises DataError where the data have no such part, or no targets.
        """
        samples = self._part(subset)
        if samples is None:
            raise no_part(self.name, subset)
        if samples.targets is None and not wants_inputs(task):
            raise DataError(
                f"{self.name} has no targets, and the task {word_of(task) or 'of the recipe'} compares outputs with "
                "targets."
            )
        if word_of(task) == "anomaly" and samples.targets is not None and subset == "train":
            samples = samples.take(torch.where(samples.targets.flatten() == 0)[0])
        return _ArrayBatches(samples, task, torch.device(device), size, tuple(attributes))

    def held_out(self, share: float) -> "ArrayDataset":
        """The training part alone with the samples that settings are chosen on as its test part.

        Those are the validation part, or, where there is none, the last `share` of the training part (at least one);
        samples before them that share targets with them are left out.
        Raises DataError where nothing would be left to train on.
        """
        if self.validation is not None:
            train, test = self.train, self.validation
        else:
            count = held_out_count(share, len(self.train), self.name)
            if count + self.overlap >= len(self.train):
                raise DataError(
                    f"{self.name} has {count_of(len(self.train), 'training sample')}; {count} of them are to be held "
                    f"out, and the {self.overlap} before these share targets with them; take more training samples."
                )
            train, test = self.train.take(slice(-count - self.overlap)), self.train.take(slice(-count, None))
        return replace(self, train=train, test=test, validation=None, sha256=digest(train, None, test))

    def _part(self, subset: Subset) -> Samples | None:
        return {"train": self.train, "validation": self.validation, "test": self.test}[subset]


def digest(train: Samples, validation: Samples | None, test: Samples) -> str:
    """sha256 of the content: the tensors of each part, one after the other, as they are in memory.

    Of views that overlap, as the windows of a series do, it is the numbers that they share, and where each begins.
    """
    found = hashlib.sha256()
    for part in (train, validation, test):
        for tensor in [] if part is None else part.tensors:
            if tensor.nbytes > tensor.untyped_storage().nbytes():
                found.update(f"{tensor.shape} {tensor.stride()} {tensor.storage_offset()}".encode())
                tensor = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            for piece in torch.split(tensor, max(1, (1 << 24) // max(1, tensor[:1].nbytes))):
                found.update(piece.contiguous().numpy().data)
    return found.hexdigest()


@dataclass(frozen=True, eq=False)
class _ArrayBatches:
    samples: Samples
    task: Task
    device: torch.device
    size: int
    attributes: Sequence[str]

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Inputs, Any]]:
        for rows in batch_rows(len(self.samples), self.size, generator)[skip:]:
            inputs, targets = self.samples.read(rows)
            inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}
            yield _called(inputs), self._beside(self._target(inputs, targets), rows, targets)

    def _beside(self, target: Any, rows: Tensor, labels: Tensor | None) -> Any:
        """The target, with the wanted attributes of its rows."""
        if not self.attributes:
            return target
        beside = {name: of.index_select(0, rows) for name, of in self.samples.attributes.items()}
        if labels is not None:
            beside[LABEL] = labels.long()
        return Attributed(target, {name: beside[name].to(self.device, non_blocking=True) for name in self.attributes})

    def _target(self, inputs: Mapping[str, Tensor], targets: Tensor | None) -> Any:
        if not wants_inputs(self.task):
            assert targets is not None  # `batches` has checked it
            return targets.to(self.device, non_blocking=True)
        first = next(iter(inputs.values()))
        if word_of(self.task) != "anomaly":
            return first
        flags = torch.zeros(len(first)) if targets is None else targets.flatten()
        return {"input": first, "anomaly": flags.to(self.device, non_blocking=True)}


def _called(inputs: Mapping[str, Tensor]) -> Inputs:
    by_keyword = {name: tensor for name, tensor in inputs.items() if name != ONLY}
    return Inputs(tuple(tensor for name, tensor in inputs.items() if name == ONLY), by_keyword)
