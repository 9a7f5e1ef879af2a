"""`ImageOptions`: how images become what a network is called with. Knows no torch, since recipes are made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from compress.errors import DataError
from compress.wording import count_of

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int, ...]

Channels = Literal["grey", "rgb"]

Normalise = Literal["dataset", "none", "imagenet"]

Augment = Literal["flip", "crop", "rotate", "color", "erase", "trivial"]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, which its networks of torchvision are trained with."""

MODES = {"grey": "L", "rgb": "RGB"}
"""PIL's names of the channels."""


@dataclass(frozen=True)
class Statistics:
    """mean, std: a number for each channel, or one for all; of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class ImageOptions:
    """From the image in its file to the network's input, in this order; the defaults change nothing but the scale.

    upright: turn an image as its EXIF orientation says, which torchvision's `ImageFolder` does not.
    channels: convert to grey (ITU-R 601-2) or red, green and blue, as PIL's `convert`.
    resize: height and width; or the length of the shorter side, with the other in proportion. Bilinear, as
        torchvision's `Resize` of PIL images.
    crop: height and width, or the length of both, of the centre that is kept, as torchvision's `CenterCrop`.
    normalise: what is subtracted from pixels in [0, 1] and what the result is divided by: the mean and the standard
        deviation of the training images (dataset), 0 and 1 (none), those of ImageNet, or others.
    augment: random changes of training batches, in this order (`compress.data.augmenting`).
    """

    upright: bool = False
    channels: Channels | None = None
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    normalise: Normalise | Statistics = "dataset"
    augment: tuple[Augment, ...] = ()

    def mode(self, stored: str) -> str:
        """PIL's mode of the prepared image, of one that is grey or RGB in its file."""
        return stored if self.channels is None else MODES[self.channels]

    def resized(self, stored: Shape) -> Shape:
        """(C, H, W) of the image before it is cropped, of an upright one of `stored` (C, H, W)."""
        channels, height, width = stored
        return (channels if self.channels is None else len(MODES[self.channels]), *self._resized(height, width))

    def shape(self, stored: Shape, what: str) -> Shape:
        """(C, H, W) of the prepared image, of an upright one of `stored` (C, H, W).

        Raises:
            DataError: it is smaller than the crop; `what` is the image, for the message.
        """
        channels, height, width = self.resized(stored)
        if self.crop is None:
            return channels, height, width
        wanted = _pair(self.crop)
        if wanted[0] > height or wanted[1] > width:
            resized = "" if self.resize is None else " after `resize`"
            raise DataError(
                f"{what} is {height} x {width} (height, width){resized}, and `crop` keeps {wanted[0]} x {wanted[1]} of "
                "it; take a smaller crop, or a larger `resize`."
            )
        return channels, *wanted

    def prepared(self, image: "Image") -> "Image":
        """An upright image of the right mode, resized and cropped."""
        height, width = self._resized(image.height, image.width)
        if (width, height) != image.size:
            from PIL.Image import Resampling

            image = image.resize((width, height), Resampling.BILINEAR)
        if self.crop is not None:
            rows, columns = _pair(self.crop)
            top, left = round((height - rows) / 2), round((width - columns) / 2)
            image = image.crop((left, top, left + columns, top + rows))
        return image

    @property
    def reshapes(self) -> bool:
        """Whether images in memory change before they are normalised."""
        return (self.channels, self.resize, self.crop) != (None, None, None)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if not isinstance(self.resize, int):
            return self.resize
        longer = int(self.resize * max(height, width) / min(height, width))
        return (self.resize, longer) if height <= width else (longer, self.resize)

    def statistics(self, channels: int, measured: Statistics, what: str) -> Statistics:
        """What is subtracted and divided by, for each channel; `measured` are those of the training images.

        Raises:
            DataError: there is another number of channels; `what` is the data set, for the message.
        """
        match self.normalise:
            case "dataset":
                return measured
            case "none":
                found = Statistics((0.0,), (1.0,))
            case "imagenet":
                found = Statistics(*IMAGENET)
            case Statistics():
                found = self.normalise
        return Statistics(*(_each(name, getattr(found, name), channels, what) for name in ("mean", "std")))


AS_STORED = ImageOptions()


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _each(name: str, values: Sequence[float], channels: int, what: str) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise DataError(
            f"`normalise` has a {name} of {len(values)} numbers, and the images of {what} have "
            f"{count_of(channels, 'channel')}; give {channels}, or one for all, or convert the images with `channels`."
        )
    return tuple(values) if len(values) == channels else tuple(values) * channels
