"""How images become what the network is called with, and the part of the data that settings are chosen on."""

from typing import Annotated

from pydantic import BeforeValidator, Discriminator, Field, Strict, Tag

from compress.data import image_options
from compress.data.image_options import Augment, Channels, ImageOptions
from compress.recipe.schema.parts import Count, Listed, Part, SomeDistinct, Validation, listed

Side = Annotated[Count, Field(le=1 << 14)]


def _size_form(value: object) -> str:
    return "pair" if isinstance(value, list | tuple) else "count"


Size = Annotated[
    Annotated[Side, Tag("count")] | Annotated[tuple[Side, Side], Strict(False), Tag("pair")], Discriminator(_size_form)
]


class Statistics(Part):
    """Numbers for `normalise`: one for each channel, or one for all, of pixels in [0, 1]."""

    mean: Listed[float] = Field(min_length=1, max_length=3, description="what is subtracted")
    std: Annotated[Listed[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=3)] = Field(
        description="what the result is divided by"
    )


def _normalise_form(value: object) -> str:
    return "word" if isinstance(value, str) else "statistics"


class ImagePart(Part):
    """The keys of images that are read from files or arrays."""

    channels: Channels | None = Field(
        default=None, description="convert all images to grey or rgb; if absent, as they are stored"
    )
    resize: Size | None = Field(
        default=None, description="[H, W], or N for the shorter side, with the other in proportion; bilinear"
    )
    crop: Size | None = Field(default=None, description="[H, W] or N: the centre of each image that is kept")
    normalise: Annotated[
        Annotated[image_options.Normalise, Tag("word")] | Annotated[Statistics, Tag("statistics")],
        Discriminator(_normalise_form),
    ] = Field(
        default="dataset",
        description="of pixels in [0, 1], subtract the mean and divide by the deviation of the training images "
        "(dataset), nothing (none, as plain ToTensor), those of ImageNet (imagenet), or {mean: [...], std: [...]}",
    )
    augment: Annotated[
        SomeDistinct[Augment] | None, BeforeValidator(listed, json_schema_input_type=Augment | SomeDistinct[Augment])
    ] = Field(
        default=None,
        description="random changes of training images, in this order: flip (left and right), crop (after padding by "
        "an eighth), rotate (15 degrees), color, erase (a rectangle), trivial (TrivialAugment)",
    )
    validation: Validation | None = Field(
        default=None,
        description="what settings are chosen on, instead of training images: a share of those, which is then not "
        "trained on, such as 0.1; an .npz file; or a folder of class folders",
    )

    def options(self) -> ImageOptions:
        """The same for the engine."""
        scale = self.normalise
        return ImageOptions(
            upright=getattr(self, "upright", False),
            channels=self.channels,
            resize=self.resize,
            crop=self.crop,
            normalise=scale if isinstance(scale, str) else image_options.Statistics(scale.mean, scale.std),
            augment=self.augment or (),
        )
