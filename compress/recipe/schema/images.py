"""How images become what the network is called with, and the samples that settings are chosen on."""

from dataclasses import fields
from typing import Annotated

from pydantic import BeforeValidator, Discriminator, Field, Strict, Tag

from compress.data import image_options
from compress.data.image_options import ImageOptions
from compress.recipe.schema.parts import Count, Listed, Part, SomeDistinct, listed

Side = Annotated[Count, Field(le=1 << 14)]


def _size_form(value: object) -> str:
    return "pair" if isinstance(value, list | tuple) else "count"


Size = Annotated[
    Annotated[Side, Tag("count")] | Annotated[tuple[Side, Side], Strict(False), Tag("pair")], Discriminator(_size_form)
]


class Statistics(Part):
    """Your own numbers for `normalise`: one for each channel or one for all, of pixels in [0, 1]."""

    mean: Listed[float] = Field(min_length=1, max_length=3, description="subtracted from each pixel")
    std: Annotated[Listed[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=3)] = Field(
        description="divides the result"
    )


def _normalise_form(value: object) -> str:
    return "word" if isinstance(value, str) else "statistics"


Channels = Annotated[
    image_options.Channels | None,
    Field(description="convert all images to grey or rgb; if absent, they are not converted"),
]
Resize = Annotated[
    Size | None,
    Field(description="[H, W], or N for the shorter side, with the other in proportion; bilinear"),
]
Crop = Annotated[Size | None, Field(description="[H, W] or N: the size of the centre to keep")]
Normalise = Annotated[
    Annotated[
        Annotated[image_options.Normalise, Tag("word")] | Annotated[Statistics, Tag("statistics")],
        Discriminator(_normalise_form),
    ],
    Field(
        description="from pixels in [0, 1], subtract the mean and divide by the deviation of the training images "
        "(dataset), nothing (none, as plain ToTensor), those of ImageNet (imagenet), or {mean: [...], std: [...]}"
    ),
]
Augment = Annotated[
    Annotated[
        SomeDistinct[image_options.Augment],
        BeforeValidator(listed, json_schema_input_type=image_options.Augment | SomeDistinct[image_options.Augment]),
    ]
    | None,
    Field(
        description="random changes of training images, in this order: flip (left and right), crop (after padding by "
        "an eighth), rotate (15 degrees), color, erase (a rectangle), trivial (TrivialAugment)"
    ),
]


class ImagePart(Part):
    """Images from files or arrays; the parts of the schema name the keys."""

    def options(self) -> ImageOptions:
        """The keys of images, for the engine."""
        given = {name: value for name, value in self if name in _OPTIONS and value is not None}
        if isinstance(scale := given.get("normalise"), Statistics):
            given["normalise"] = image_options.Statistics(scale.mean, scale.std)
        return ImageOptions(**given)


_OPTIONS = {field.name for field in fields(ImageOptions)}
