"""Data sets as uint8 tensors in memory, and the batches that training and evaluation iterate over.

`TrainingData` is the protocol of a data set: a `Dataset` in memory or a `StreamedDataset` of files
(`compress.data.streaming`), both of which `compress.data.sources` makes, or a user's own `Loaders`
(`compress.data.loaders`). An epoch of MNIST takes hundredths of a second in memory, and seconds through transforms and
a DataLoader.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from compress.batches import Attributed, Batches, Subset
from compress.data.augmenting import Augmented
from compress.data.image_options import AS_STORED, Augment, ImageOptions
from compress.data.preparation import Images, Preparation
from compress.data.validation import held_out_count
from compress.errors import DataError
from compress.inputs import Inputs
from compress.tasks import Task, wants_inputs
from compress.wording import count_of

LABEL = "label"
"""The attribute that is a sample's own class."""


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
    @property
    def attributes(self) -> Mapping[str, int]: ...  # the number of classes of each; "label" is the sample's own class
    def count(self, subset: Subset) -> int | None: ...  # samples; None where there are none, or nobody knows
    def batches(
        self,
        subset: Subset,
        size: int,
        task: Task,
        device: torch.device | str = "cpu",
        *,
        attributes: Sequence[str] = (),  # with some, each target is `Attributed`
    ) -> Batches: ...


@runtime_checkable
class Divisible(Protocol):
    """A data set of which a part can be held out, to choose settings on."""

    def held_out(self, share: float) -> TrainingData:
        """The training samples without that part, and the part as the test samples.

        It is the validation part, or, where there is none, the last `share` (in (0, 1)) of the training samples.

        Raises:
            DataError: nothing would be left to train on, or no part can be held out.
        """
        ...


@dataclass(frozen=True, eq=False)
class Split:
    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]
    attributes: Mapping[str, Tensor] = field(default_factory=dict)  # int64 [N] by name, beside the labels

    def take(self, rows: slice | Tensor) -> "Split":
        attributes = {name: values[rows] for name, values in self.attributes.items()}
        return Split(self.images[rows], self.labels[rows], attributes)

    def without_last(self, count: int) -> tuple["Split", "Split"]:
        """All but the last `count` samples, and those."""
        return self.take(slice(-count)), self.take(slice(-count, None))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in memory, prepared by `options` except the scale, which is done batch by batch.

    mean, std: [C], what is subtracted from pixels in [0, 1], and what the result is divided by.
    sha256: of the bytes of the images (uint8), labels and attributes (int64) of train, validation and test, one after
        the other.
    """

    name: str
    train: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor
    sha256: str
    note: str | None = None
    class_names: tuple[str, ...] | None = None
    validation: Split | None = None
    options: ImageOptions = AS_STORED

    @property
    def preparation(self) -> Images:
        return Images(tuple(self.mean.tolist()), tuple(self.std.tolist()), self.options)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.images.shape[1:])

    @property
    def example(self) -> Inputs:
        images = self.train.images[torch.arange(2) % len(self.train.images)]  # two, even of a single image
        return Inputs((normalised(images, None, self.mean.view(-1, 1, 1), self.std.view(-1, 1, 1))[0],))

    @property
    def attributes(self) -> Mapping[str, int]:
        return {LABEL: self.classes, **{name: int(of.max()) + 1 for name, of in self.train.attributes.items()}}

    def count(self, subset: Subset) -> int | None:
        split = self._part(subset)
        return None if split is None else len(split.images)

    def batches(
        self,
        subset: Subset,
        size: int,
        task: Task,
        device: torch.device | str = "cpu",
        *,
        augmented: bool = False,
        attributes: Sequence[str] = (),
    ) -> Batches:
        """Batches of `size` normalised images [n, C, H, W] with the target of `task`.

        The target is the image in [0, 1] for `reconstruct`, the label for `classify`, and what an own task names.
        The whole subset moves to `device` here, once, and not batch by batch.

        Args:
            augmented: change the images at random, as the options say: for training, and for nothing that measures.
            attributes: names of `Dataset.attributes` that each target has beside it, as `Attributed`.

        Raises:
            DataError: there is no such part.
        """
        if (split := self._part(subset)) is None:
            raise no_part(self.name, subset)
        every = {LABEL: split.labels, **split.attributes}
        targets = None if wants_inputs(task) else split.labels.to(device)
        mean, std = (statistic.view(-1, 1, 1).to(device) for statistic in (self.mean, self.std))
        words = self.options.augment if augmented else ()
        beside = {name: every[name].to(device) for name in attributes}
        return _ImageBatches(split.images.to(device), targets, mean, std, size, words, beside)

    def held_out(self, share: float) -> "Dataset":
        """The training images alone, with those that settings are chosen on as the test subset.

        Those are the validation part, or, where there is none, the last `share` of the training images (in (0, 1), at
        least one). Normalised like the whole, as the networks trained on that expect.

        Raises:
            DataError: nothing would be left to train on.
        """
        train, test = self.train, self.validation
        if test is None:
            train, test = train.without_last(held_out_count(share, len(train.images), self.name))
        return replace(self, train=train, test=test, validation=None, sha256=digest(train, test))

    def _part(self, subset: Subset) -> Split | None:
        return {"train": self.train, "validation": self.validation, "test": self.test}[subset]


def no_part(name: str, subset: Subset) -> DataError:
    return DataError(f"{name} has no {subset} part; name one with `{subset}`.")


def digest(train: Split, test: Split, validation: Split | None = None) -> str:
    """sha256 of a data set's content, as `Dataset.sha256` has it."""
    found = hashlib.sha256()
    for split in (train, validation, test):
        for tensor in () if split is None else (split.images, split.labels, *split.attributes.values()):
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
    augment: Sequence[Augment]
    attributes: Mapping[str, Tensor]

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Any]]:
        batches = batch_rows(len(self.images), self.size, generator)[skip:]
        augmented = Augmented.epoch(self.augment, generator)
        for number, rows in enumerate(batches, skip):
            rows = rows.to(self.images.device, non_blocking=True)
            # index_select on uint8, then floats: half the time of images[rows], a quarter of the bytes of floats.
            images = augmented(self.images.index_select(0, rows), number)
            labels = None if self.labels is None else self.labels.index_select(0, rows)
            given, target = normalised(images, labels, self.mean, self.std)
            yield given, with_attributes(target, self.attributes, rows)


def with_attributes(target: Any, attributes: Mapping[str, Tensor], rows: Tensor) -> Any:
    """`target`, or with attributes of all samples (int64 [N] by name) those of `rows` beside it."""
    if not attributes:
        return target
    return Attributed(target, {name: of.index_select(0, rows) for name, of in attributes.items()})


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
            f"{data.name} has labels up to {data.classes - 1} and {source} only {count_of(outputs, 'output')}; "
            f"give the model {count_of(data.classes, 'class', 'classes')}."
        )


def times(shape: Iterable[int]) -> str:
    """A shape as messages show it: 1x28x28."""
    return "x".join(map(str, shape))
