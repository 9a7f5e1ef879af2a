"""Nuisances: known changes of images, made from the images themselves, whose classes are attributes of the samples."""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from compress.data.dataset import Split
from compress.errors import DataError

SATURATION = 0.6
"""Of the tints: 0 would be grey, and at 1 an image of the first hue would have no green and no blue."""

SEEDS = {"tint": 0, "rotate": 1}
"""Images are rotated alike with and without a tint."""


@dataclass(frozen=True)
class Nuisances:
    """What is changed in each image of a data set, independently of its class and of all else.

    tint: the number of hues, evenly spaced from red: a grey image becomes red, green and blue, in one of them. None for
        no change.
    rotate: the angles in degrees, anticlockwise; an image is rotated by one of them, bilinear, with black corners. None
        for no change.
    """

    tint: int | None = None
    rotate: tuple[float, ...] | None = None

    @property
    def classes(self) -> Mapping[str, int]:
        """The number of classes of each attribute."""
        found = {"tint": self.tint, "rotate": None if self.rotate is None else len(self.rotate)}
        return {name: count for name, count in found.items() if count is not None}

    @property
    def note(self) -> str:
        """What was done to the images, for readers of results."""
        done = [] if self.tint is None else [f"tinted in one of {self.tint} hues"]
        if self.rotate is not None:
            done.append(f"rotated by one of {', '.join(f'{angle:g}' for angle in self.rotate)} degrees")
        return f"Each image is {' and '.join(done)}: drawn at random, the same in every run."

    def changed(self, split: Split, part: int, source: str) -> Split:
        """The changed images with their attributes, of the first, second or third part (0, 1, 2) of a data set.

        The draw for an image depends on its place and its part alone, not on the number of images.

        Raises:
            DataError: images to be tinted have colours.
        """
        drawn = {
            name: torch.randint(
                count, (len(split.labels),), generator=torch.Generator().manual_seed(10 * part + SEEDS[name])
            )
            for name, count in self.classes.items()
        }
        images = split.images
        if self.rotate is not None:
            images = _rotated(images, self.rotate, drawn["rotate"])
        if self.tint is not None:
            if images.shape[1] != 1:
                raise DataError(f"{source} has coloured images, and `tint` is for grey ones; remove `tint`.")
            images = _tinted(images, hues(self.tint)[drawn["tint"]])
        return replace(split, images=images, attributes={**split.attributes, **drawn})


UNCHANGED = Nuisances()


def hues(count: int) -> Tensor:
    """Red, green and blue in [0, 1] of evenly spaced hues, [count, 3]."""
    return torch.tensor([colorsys.hsv_to_rgb(hue / count, SATURATION, 1.0) for hue in range(count)])


def _tinted(images: Tensor, colours: Tensor) -> Tensor:
    """uint8 [N, 1, H, W] in the colours [N, 3], as uint8 [N, 3, H, W]."""
    found = torch.empty(len(images), 3, *images.shape[2:], dtype=torch.uint8)
    pieces = (torch.split(tensor, 1000) for tensor in (found, images, colours))
    for place, grey, colour in zip(*pieces, strict=True):
        place.copy_((grey.float() * colour[:, :, None, None]).round())
    return found


def _rotated(images: Tensor, angles: tuple[float, ...], drawn: Tensor) -> Tensor:
    from PIL import Image

    found = np.empty(tuple(images.shape), np.uint8)
    for place, pixels, angle in zip(found, images.numpy(), drawn.tolist(), strict=True):
        for plane, channel in zip(place, pixels, strict=True):
            plane[...] = Image.fromarray(channel).rotate(angles[angle], Image.Resampling.BILINEAR)
    return torch.from_numpy(found)
