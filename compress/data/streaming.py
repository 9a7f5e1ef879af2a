"""Data sets that need not fit into memory: worker processes decode the image files, a batch at a time.

Workers hand pixels back through pipes, not through shared memory, of which a container often has 64 MB. No more than
`AHEAD` pieces are decoded ahead by each of them, whatever the number of files and the size of a batch.
"""

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from compress import worker_signals
from compress.batches import Batches, Subset
from compress.data.augmenting import Augmented
from compress.data.dataset import LABEL, batch_rows, no_part, normalised, times, with_attributes
from compress.data.image_files import read_image
from compress.data.image_options import AS_STORED, Augment, ImageOptions
from compress.data.preparation import Images
from compress.errors import DataError, RunError
from compress.inputs import Inputs
from compress.tasks import Task, wants_inputs

PIECE_BYTES = 4 << 20  # of pixels that a worker hands over at once, or those of one image
PIECE_IMAGES = 256  # at most, so that small images are distributed too
AHEAD = 2  # pieces that a worker decodes before they are asked for

Paths = NDArray[np.bytes_]


@dataclass(frozen=True, eq=False)
class Files:
    """Image files and their classes; the paths are one array, which takes a tenth of the memory of as many strings."""

    paths: Paths  # [N]
    labels: Tensor  # int64 [N]

    def take(self, rows: Tensor) -> "Files":
        """Those of `rows`: numbers or truth values."""
        return Files(self.paths[rows.numpy()], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Decoder:
    """Reads image files that are all like `model` once they are prepared: uint8 `shape` (C, H, W).

    The worker processes, one thread each, start with the first batch and live as long as the decoder; with 0 workers
    this process decodes. The images and their order do not depend on the number of workers.
    """

    model: str  # the path of an image
    shape: tuple[int, ...]
    workers: int
    options: ImageOptions = AS_STORED
    _idle: list["_Lane"] = field(default_factory=list)

    @classmethod
    def like(cls, path: str, workers: int, options: ImageOptions = AS_STORED) -> "Decoder":
        """A decoder for images like the one at `path`; raises DataError where that is not an image."""
        return cls(path, read_image(path, options=options).shape, workers, options)

    @property
    def piece(self) -> int:
        """Images that are decoded at once."""
        return max(1, min(PIECE_IMAGES, PIECE_BYTES // math.prod(self.shape)))

    @property
    def _images(self) -> "_Images":
        return _Images(self.model, self.shape, self.options)

    def read(self, paths: Paths) -> Tensor:
        """A few images, uint8 [n, C, H, W], read in this process; raises DataError as `decode`."""
        images = self._images[paths]
        if isinstance(images, str):
            raise DataError(images)
        return torch.from_numpy(images)

    def decode(self, paths: Paths, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images uint8 [n, C, H, W] of each batch of rows of `paths`.

        Raises:
            DataError: a file is not an image, or not like `model`.
            RunError: a worker process died.
        """
        # A lane serves one epoch at a time; it serves again after an early end, but not after a failure.
        lane = self._idle.pop() if self._idle else _Lane(self._images, self.workers)
        rows = [torch.split(batch, self.piece) for batch in batches]
        # The lane must not refer back to this object: torch ends workers of a reference cycle only after seconds.
        pieces = lane.run(paths[piece.numpy()] for batch in rows for piece in batch)
        try:
            for batch in rows:
                yield torch.cat([torch.from_numpy(next(pieces)) for _ in batch])
        except GeneratorExit:
            self._idle.append(lane)
            raise
        self._idle.append(lane)


@dataclass
class _Pieces:
    """The sampler of a DataLoader, which must remain the same object while its epochs change."""

    paths: Iterable[Paths] = ()

    def __iter__(self) -> Iterator[Paths]:
        return iter(self.paths)


class _Lane:
    """Worker processes that outlive the epochs they serve."""

    def __init__(self, images: "_Images", workers: int) -> None:
        self._pieces = _Pieces()
        self._loader: DataLoader[Any] = DataLoader(
            images,  # type: ignore[arg-type]  # a Dataset has nothing else that is asked of it
            sampler=self._pieces,
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # the workers' seeds would otherwise be drawn from the global one
            worker_init_fn=partial(_begin, os.getpid()),
        )

    def run(self, pieces: Iterable[Paths]) -> Iterator[NDArray[np.uint8]]:
        self._pieces.paths = pieces
        try:
            with warnings.catch_warnings(), worker_signals.starting():
                # From Python 3.12 on. A worker does not wait for locks of other threads: it reads files, on one thread.
                warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
                found = iter(self._loader)
            for images in found:
                if isinstance(images, str):
                    raise DataError(images)
                yield images
        except RuntimeError as error:
            explain(error)


def _begin(parent: int, worker: int) -> None:
    worker_signals.obey(parent)


def _unchanged(images: object) -> object:
    return images  # torch's own would copy arrays into shared memory


def explain(error: RuntimeError) -> NoReturn:
    """Raise RunError where a worker of a DataLoader died, which torch reports at any line; else raise `error`."""
    if "DataLoader worker" not in str(error):
        raise error
    raise RunError(
        f"a process that decodes images died (out of memory?): {error}; try fewer of them (data.workers)"
    ) from error


@dataclass(frozen=True)
class _Images:
    """The data set of a worker, which decodes."""

    model: str
    shape: tuple[int, ...]
    options: ImageOptions

    def __getitem__(self, paths: Paths) -> NDArray[np.uint8] | str:
        """The images, or the text of the error: an exception would lose it between processes."""
        images = np.empty((len(paths), *self.shape), np.uint8)
        try:
            for row, path in enumerate(paths):
                images[row] = self._read(os.fsdecode(path))
        except DataError as error:
            return str(error)
        return images

    def _read(self, path: str) -> NDArray[np.uint8]:
        def require_alike(shape: tuple[int, ...]) -> None:
            if shape != self.shape:
                ways = [
                    *(["`resize: [H, W]` (or a `crop`)"] if shape[1:] != self.shape[1:] else []),
                    *(["`channels: rgb` or `channels: grey`"] if shape[0] != self.shape[0] else []),
                ]
                raise DataError(
                    f"{path} is {times(shape)} and {self.model} {times(self.shape)} "
                    f"(channels, height, width); all images must have the same shape; set {' and '.join(ways)}."
                )

        return read_image(path, require_alike, options=self.options)


def default_workers() -> int:
    """One for each core that this process may use, at most 4."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class StreamedDataset:
    """Images that each epoch decodes again. Its batches equal those of a `Dataset` of the images, bit for bit."""

    name: str
    train: Files
    test: Files
    classes: int
    mean: Tensor  # [C], as in `Dataset`
    std: Tensor  # [C], as in `Dataset`
    sha256: str  # as in `Dataset`
    decoder: Decoder
    note: str | None = None
    class_names: tuple[str, ...] | None = None
    validation: Files | None = None

    @property
    def options(self) -> ImageOptions:
        return self.decoder.options

    @property
    def preparation(self) -> Images:
        return Images(tuple(self.mean.tolist()), tuple(self.std.tolist()), self.options)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.decoder.shape

    @property
    def example(self) -> Inputs:
        paths = self.train.paths[np.arange(2) % len(self.train.paths)]  # two, even of a single image
        mean, std = (statistic.view(-1, 1, 1) for statistic in (self.mean, self.std))
        return Inputs((normalised(self.decoder.read(paths), None, mean, std)[0],))

    def count(self, subset: Subset) -> int | None:
        files = self._part(subset)
        return None if files is None else len(files.labels)

    @property
    def attributes(self) -> Mapping[str, int]:
        return {LABEL: self.classes}

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
        """As `Dataset.batches`; images move to `device` batch by batch."""
        if (files := self._part(subset)) is None:
            raise no_part(self.name, subset)
        words = self.options.augment if augmented else ()
        beside = dict.fromkeys(attributes, files.labels)  # there is no other one
        return _StreamedBatches(files, self, size, task, torch.device(device), words, beside)

    def _part(self, subset: Subset) -> Files | None:
        return {"train": self.train, "validation": self.validation, "test": self.test}[subset]


@dataclass(frozen=True, eq=False)
class _StreamedBatches:
    files: Files
    data: StreamedDataset
    size: int
    task: Task
    device: torch.device
    augment: Sequence[Augment]
    attributes: Mapping[str, Tensor]

    def __len__(self) -> int:
        return -(-len(self.files.labels) // self.size)

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Any]]:
        mean, std = (statistic.view(-1, 1, 1).to(self.device) for statistic in (self.data.mean, self.data.std))
        batches = batch_rows(len(self.files.labels), self.size, generator)[skip:]
        augmented = Augmented.epoch(self.augment, generator)
        images = self.data.decoder.decode(self.files.paths, batches)
        for number, (rows, pixels) in enumerate(zip(batches, images, strict=True), skip):
            labels = None if wants_inputs(self.task) else self.files.labels[rows].to(self.device, non_blocking=True)
            given, target = normalised(augmented(pixels.to(self.device, non_blocking=True), number), labels, mean, std)
            beside = with_attributes(target, self.attributes, rows)
            yield given, tree_map_only(Tensor, lambda tensor: tensor.to(self.device, non_blocking=True), beside)
