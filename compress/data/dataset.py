"""Data sets as uint8 tensors in memory, and the batches that training and evaluation iterate over.

`TrainingData` is the protocol of a data set: a `Dataset` in memory or a `StreamedDataset` of files
(`compress.data.streaming`), both of which `compress.data.sources` makes, or a user's own `Loaders`
(`compress.data.loaders`). An epoch of MNIST takes hundredths of a second in memory, and seconds through transforms and
a DataLoader.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from compress.batches import Batches, Subset
from compress.data.preparation import Images, Preparation
from compress.errors import DataError
from compress.inputs import Inputs
from compress.tasks import Task, wants_inputs


class TrainingData(Protocol):
    """The data set that training and its results need: a `Dataset`, `StreamedDataset` or `Loaders`."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...  # of one input, (C, H, W) for images
    @property
    def classes(self) -> int | None: ...
    @property
    def class_names(self) -> tuple[str, ...] | None: ...
    @property
    def preparation(self) -> Preparation | None: ...  # None where only the user's own loaders know it
    @property
    def sha256(self) -> str | None: ...
    @property
    def note(self) -> str | None: ...  # a note on the data for readers of the results
    @property
    def example(self) -> Inputs: ...  # the inputs of the first two training samples, on the CPU, without labels
    def count(self, subset: Subset) -> int | None: ...  # samples; None where there are none, or nobody knows
    def batches(self, subset: Subset, size: int, task: Task, device: torch.device | str = "cpu") -> Batches: ...


@dataclass(frozen=True, eq=False)
class Split:
    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in memory. `mean` and `std` [C] are those of the training images scaled to [0, 1]."""

    name: str
    train: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor
    sha256: str  # of the bytes of train images, train labels (int64), test images, test labels, one after the other
    note: str | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def preparation(self) -> Images:
        return Images(tuple(self.mean.tolist()), tuple(self.std.tolist()))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.images.shape[1:])

    @property
    def example(self) -> Inputs:
        images = self.train.images[torch.arange(2) % len(self.train.images)]  # two, even of a single image
        return Inputs((normalised(images, None, self.mean.view(-1, 1, 1), self.std.view(-1, 1, 1))[0],))

    def count(self, subset: Subset) -> int | None:
        return None if subset == "validation" else len(self._split(subset).images)

    def batches(self, subset: Subset, size: int, task: Task, device: torch.device | str = "cpu") -> Batches:
        """Batches of `size` normalised images [n, C, H, W] with the target of `task`.

        The target is the image in [0, 1] for `reconstruct`, the label for `classify`, and what an own task names.
        The whole subset moves to `device` here, once, and not batch by batch.
        """
        split = self._split(subset)
        targets = None if wants_inputs(task) else split.labels.to(device)
        mean, std = (statistic.view(-1, 1, 1).to(device) for statistic in (self.mean, self.std))
        return _ImageBatches(split.images.to(device), targets, mean, std, size)

    def held_out(self, share: float) -> "Dataset":
        """The training images alone, the last `share` of them (in (0, 1), at least one) as the test subset.

        The choice of settings may use these. Normalised like the whole, as the networks trained on that expect.
        Raises DataError where nothing would be left to train on.
        """
        count = max(1, round(share * len(self.train.images)))
        if count >= len(self.train.images):
            raise DataError(
                f"{self.name} has {len(self.train.images)} training images, and {count} of them are to be held out; "
                "take more training images."
            )
        train, test = (
            Split(self.train.images[rows], self.train.labels[rows]) for rows in (slice(-count), slice(-count, None))
        )
        return replace(self, train=train, test=test, sha256=digest(train, test))

    def _split(self, subset: Subset) -> Split:
        return self.train if subset == "train" else self.test


def digest(train: Split, test: Split) -> str:
    """sha256 of a data set's content, as `Dataset.sha256` has it."""
    found = hashlib.sha256()
    for tensor in (train.images, train.labels, test.images, test.labels):
        found.update(tensor.numpy().data)
    return found.hexdigest()


def batch_rows(samples: int, size: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
    """Which samples (int64) are in each batch of an epoch; equal generators give equal rows."""
    order = torch.arange(samples) if generator is None else torch.randperm(samples, generator=generator)
    return torch.split(order, size)


def normalised(images: Tensor, labels: Tensor | None, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """(input, target) of uint8 images [n, C, H, W], with statistics [C, 1, 1] of images in [0, 1].

    Without labels the images in [0, 1] are the targets.
    """
    pixels = images.float().div_(255)
    return (pixels - mean).div_(std), pixels if labels is None else labels


@dataclass(frozen=True, eq=False)
class _ImageBatches:
    images: Tensor
    labels: Tensor | None  # None: the images themselves are the targets
    mean: Tensor
    std: Tensor
    size: int

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in batch_rows(len(self.images), self.size, generator)[skip:]:
            rows = rows.to(self.images.device)
            # index_select on uint8, then floats: half the time of images[rows], a quarter of the bytes of floats.
            labels = None if self.labels is None else self.labels.index_select(0, rows)
            yield normalised(self.images.index_select(0, rows), labels, self.mean, self.std)


def require_shape(data: TrainingData, expected: Sequence[int], source: str) -> None:
    """Raise DataError unless the inputs of `data` have the shape that `source` (a model's name) expects."""
    if data.shape != tuple(expected):
        raise DataError(
            f"{source} takes inputs of {times(expected)} and {data.name} has {times(data.shape)}; "
            f"choose another data set or a model for that size."
        )


def require_classes(data: TrainingData, outputs: int, source: str) -> None:
    """Raise DataError if `data` has more classes than `source` (a model's name) has outputs."""
    if data.classes is not None and data.classes > outputs:
        raise DataError(
            f"{data.name} has labels up to {data.classes - 1} and {source} only {outputs} outputs; "
            f"give the model {data.classes} classes."
        )


def times(shape: Iterable[int]) -> str:
    """A shape as messages show it: 1x28x28."""
    return "x".join(map(str, shape))
