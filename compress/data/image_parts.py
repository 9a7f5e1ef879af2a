"""The parts of an image data set in memory: checked, limited, prepared, measured, and put together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.array_files import LARGEST_BYTES, read_npz
from compress.data.attributes import attribute_of, require_known
from compress.data.dataset import Dataset, Split, digest, times
from compress.data.image_files import require_small
from compress.data.image_options import AS_STORED, ImageOptions, Normalise, Statistics
from compress.data.nuisances import UNCHANGED, Nuisances
from compress.data.streaming import StreamedDataset
from compress.data.validation import held_out_count
from compress.errors import DataError
from compress.wording import count_of


class Keys(TypedDict, total=False):
    """The keywords that all sources take, as `Wanted` explains them."""

    train: int | None
    test: int | None
    validation: float | str | Path | None
    options: ImageOptions
    nuisances: Nuisances
    attributes: Sequence[str]


@dataclass(frozen=True)
class Wanted:
    """What is made of a source.

    train, test: only the first so many images of each part, in the source's order; all by default.
    validation: the part that settings are chosen on: a share of the training images, in (0, 1), the last ones, which
        are then not trained on; or an .npz file, or a folder of class folders.
    options: prepare the images.
    nuisances: known changes of the images, before they are prepared.
    attributes: arrays of .npz files that are attributes of the samples.
    """

    train: int | None = None
    test: int | None = None
    validation: float | str | Path | None = None
    options: ImageOptions = AS_STORED
    nuisances: Nuisances = UNCHANGED
    attributes: Sequence[str] = ()

    def made(self, split: Split, part: int, source: str) -> Split:
        """The images of the first, second or third part (0, 1, 2), changed and prepared."""
        if self.nuisances.classes:
            split = self.nuisances.changed(split, part, source)
        return prepared(split, self.options, source)

    @property
    def share(self) -> float | None:
        return self.validation if isinstance(self.validation, float) else None

    @property
    def place(self) -> Path | None:
        return Path(self.validation) if isinstance(self.validation, str | Path) else None


def together(
    name: str,
    train: Split,
    test: Split,
    validation: Split | None,
    wanted: Wanted,
    *,
    classes: int,
    note: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """The data set of these parts, which are prepared; a share of `train` becomes the validation part here.

    Raises:
        DataError: the parts do not fit each other, or the share leaves a class nothing to train on.
    """
    if wanted.nuisances.classes:
        note = f"{note} {wanted.nuisances.note}" if note else wanted.nuisances.note
    for part, split in (("test", test), ("validation", validation)):
        if split is not None and split.images.shape[1:] != train.images.shape[1:]:
            sizes = [times(found.images.shape[1:]) for found in (train, split)]
            raise DataError(
                f"{name}: training images are {sizes[0]} and {part} images {sizes[1]}; they must be alike, as `resize` "
                "and `channels` can make them."
            )
        if split is not None:
            require_labels(split.labels, classes, name, part)
            require_known(train.attributes, split.attributes, f"{name}: {part}")
    statistics = measured(histograms(train.images), wanted.options, name)
    if wanted.share is not None:
        train, validation = train.without_last(share_of(train.labels, wanted.share, name))
    names = None if class_names is None else tuple(class_names)
    content = digest(train, test, validation)
    return Dataset(name, train, test, classes, *statistics, content, note, names, validation, wanted.options)


def share_of(labels: Tensor, share: float, name: str) -> int:
    """How many of the training samples are held out for validation: the last ones.

    Raises:
        DataError: a class would have no sample left to train on.
    """
    count = held_out_count(share, len(labels), name)
    gone = set(labels.tolist()) - set(labels[:-count].tolist())
    if gone:
        raise DataError(
            f"{name}: `validation: {share:g}` takes the last {count:,} of "
            f"{count_of(len(labels), 'training sample')}, and all of "
            f"class {min(gone)} are among them. Shuffle them, or give a validation file."
        )
    return count


def require_labels(labels: Tensor, classes: int, name: str, part: str) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{name}: label {low if low < 0 else high} is out of range in the {part} part, since the training images "
            f"have 0 to {classes - 1}. Where images are sorted by class, shuffle them or give a {part} set of its own."
        )


def first(split: Split, count: int | None, what: str) -> Split:
    if count is None:
        return split
    require_count(count, len(split.images), what)
    return split.take(slice(count))


def require_count(count: int, there: int, what: str) -> None:
    if not 1 <= count <= there:
        raise DataError(f"{what} asks for the first {count:,} of {count_of(there, 'image')}.")


# --- statistics ---


def measured(found: Tensor, options: ImageOptions, name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in use [C], for training images with these `histograms`."""
    chosen = options.statistics(len(found), _statistics(found), name)
    return torch.tensor(chosen.mean, dtype=torch.float32), torch.tensor(chosen.std, dtype=torch.float32)


def rescaled(data: Dataset | StreamedDataset, way: Normalise | Statistics) -> Dataset | StreamedDataset | None:
    """The same images on another scale; None for that of the training images, where they are not in memory."""
    if way != "dataset":
        counts = torch.ones(data.shape[0], 256)
    elif isinstance(data, Dataset):
        counts = histograms(data.train.images)
    else:
        return None
    mean, std = measured(counts, ImageOptions(normalise=way), data.name)
    return replace(data, mean=mean, std=std)


def _statistics(histograms: Tensor) -> Statistics:
    """Mean and (population) standard deviation per channel, of images scaled to [0, 1]."""
    shares = histograms.double() / histograms.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
    # A channel of one value has nothing to normalise; dividing by 1 leaves it at 0.
    return Statistics(tuple(mean.tolist()), tuple(torch.where(std == 0, 1.0, std).tolist()))


def histograms(images: Tensor) -> Tensor:
    """How often each channel of uint8 [N, C, H, W] has each value, int64 [C, 256]: sums of them are exact."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for piece in torch.split(images, 1000):  # each channel is copied for the counting
        counts += torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in piece.unbind(1)])
    return counts


# --- arrays ---


def split_of(images: NDArray[np.uint8], labels: object, source: str) -> Split:
    """Images uint8 [N, C, H, W] and as many labels, N >= 1, as tensors that own their memory in this order."""
    split = Split(torch.as_tensor(np.ascontiguousarray(images)), torch.as_tensor(np.asarray(labels, np.int64)))
    if len(split.images) != len(split.labels):
        raise DataError(
            f"{source} has {count_of(len(split.images), 'image')} and {count_of(len(split.labels), 'label')}."
        )
    if not len(split.images):
        raise DataError(f"{source} has no image.")
    return split


def prepared(split: Split, options: ImageOptions, source: str) -> Split:
    """Every image converted, resized and cropped by PIL, as images in files are."""
    if not options.reshapes:
        return split
    from PIL import Image

    stored = tuple(split.images.shape[1:])
    require_small(options.resized(stored), f"{source}: each image")
    shape = options.shape(stored, f"{source}: each image")
    if (size := math.prod(shape) * len(split.images)) > LARGEST_BYTES:
        raise DataError(
            f"{source} would have {size:,} bytes of images after `resize`; the most in memory is {LARGEST_BYTES:,}. "
            "Resize to less, or take fewer images (train, test)."
        )
    images = np.empty((len(split.images), *shape), np.uint8)
    for place, pixels in zip(images, split.images.numpy(), strict=True):
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        mode = options.mode(image.mode)
        found = np.asarray(options.prepared(image if image.mode == mode else image.convert(mode)))
        place[...] = found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
    return replace(split, images=torch.from_numpy(images))


def npz_split(path: Path, attributes: Sequence[str] = ()) -> Split:
    """The images of an .npz file, with arrays of these names as attributes beside the labels."""
    images, labels, *others = read_npz(path, attributes)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; they must be integers, one for each image."
        )
    if len(labels) and (largest := int(labels.max())) > np.iinfo(np.int64).max:
        raise DataError(f"{path}: label {largest} is out of range; labels are 0 to classes - 1.")
    split = split_of(channels_first(images, str(path)), labels, str(path))
    beside = {
        name: attribute_of(of, len(labels), f"{path}: {name}") for name, of in zip(attributes, others, strict=True)
    }
    return replace(split, attributes=beside)


def channels_first(images: NDArray[Any], source: str) -> NDArray[np.uint8]:
    """uint8 [N, H, W], [N, C, H, W] or [N, H, W, C] as [N, C, H, W]; C is 1 or 3."""
    if images.dtype != np.uint8:
        raise DataError(
            f"{source}: images are {images.dtype}; store them as uint8, 0 to 255 "
            f"(from values in [0, 1]: `(255 * images).round().astype(np.uint8)`)."
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    raise DataError(
        f"{source}: images have the shape {list(images.shape)}; it must be [N, H, W], [N, C, H, W] or "
        f"[N, H, W, C] with 1 or 3 channels."
    )


def count_classes(labels: Tensor, source: str) -> int:
    """Number of classes of `labels`; DataError unless they are 0 to classes - 1 without a gap."""
    found = torch.from_numpy(np.unique(labels.numpy()))
    if found[0] < 0:
        raise DataError(f"{source}: label {int(found[0])} is negative; labels are 0 to classes - 1.")
    (gaps,) = torch.where(found != torch.arange(len(found)))
    if len(gaps):
        missing = int(gaps[0])
        raise DataError(
            f"{source}: label {missing} is missing and {int(found[missing])} is there; labels must be 0 to "
            f"classes - 1, with an image for each."
        )
    return len(found)
