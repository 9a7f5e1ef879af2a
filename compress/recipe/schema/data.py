"""The data: a known data set, files, or your own factory."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator

from compress.errors import DataError
from compress.recipe.schema.array_data import ArrayData
from compress.recipe.schema.images import Augment, Channels, Crop, ImagePart, Normalise, Resize
from compress.recipe.schema.parts import (
    CIFAR_IMAGE,
    MNIST_IMAGE,
    Attributes,
    BatchSize,
    Distinct,
    Factory,
    FirstTest,
    FirstTrain,
    Part,
    Text,
    ValidationPart,
    ValidationShare,
    told_by,
)
from compress.recipe.schema.table_data import CsvData, ParquetData
from compress.recipe.schema.text_data import DocstringData, DocumentationData, TextData

Angle = Annotated[float, Field(ge=-180, le=180)]


class NamedData(ImagePart):
    """A known data set."""

    images: ClassVar[Mapping[str, tuple[int, int, int]]] = {
        "mnist": MNIST_IMAGE,
        "fashion_mnist": MNIST_IMAGE,
        "cifar10": CIFAR_IMAGE,
        "mnist_sample": MNIST_IMAGE,
    }

    name: Literal["mnist", "fashion_mnist", "cifar10", "mnist_sample"]
    tint: Annotated[int, Field(ge=2, le=360)] | None = Field(
        default=None,
        description="tint each grey image in one of so many hues, drawn at random; the hue is the attribute `tint`",
    )
    rotate: Annotated[Distinct[Angle], Field(min_length=2)] | None = Field(
        default=None,
        description="rotate each image by one of these angles in degrees, anticlockwise, drawn at random; it is the "
        "attribute `rotate`",
    )
    channels: Channels = None
    resize: Resize = None
    crop: Crop = None
    normalise: Normalise = "dataset"
    augment: Augment = None
    validation: ValidationPart = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128

    @field_validator("tint")
    @classmethod
    def _grey_images_are_tinted(cls, tint: int | None, info: ValidationInfo) -> int | None:
        if tint is not None and cls.images.get(info.data.get("name", ""), MNIST_IMAGE)[0] != 1:
            raise ValueError(f"{info.data['name']} has coloured images, and tint is for grey ones; remove the key")
        return tint

    def image(self) -> tuple[int, ...]:
        """(C, H, W) of the prepared images. Raises ValueError where a crop is larger than they are."""
        try:
            stored = self.images[self.name]
            stored = stored if self.tint is None else (3, *stored[1:])
            return self.options().shape(stored, f"each image of {self.name}")
        except DataError as error:
            raise ValueError(str(error)) from None


class PackagedData(Part):
    """A table or series that is a file inside a Python package."""

    name: Literal["breast_cancer", "japanese_vowels", "shuttle"]
    validation: ValidationShare = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class NpzData(ImagePart):
    """Arrays `images` (uint8, [N, C, H, W]) and `labels` in numpy files, and perhaps attributes."""

    npz: Text = Field(description="file with the images; without `npz_test`, a part of it is held out for testing")
    npz_test: Text | None = Field(default=None, description="file with the test images")
    attributes: Attributes = None
    channels: Channels = None
    resize: Resize = None
    crop: Crop = None
    normalise: Normalise = "dataset"
    augment: Augment = None
    validation: ValidationPart = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class FolderData(ImagePart):
    """Images in one folder per class, below train/, val/ (or valid/, validation/) and test/, or directly."""

    folder: Text = Field(
        description="holds train/CLASS, test/CLASS and perhaps val/CLASS (without test, that is the test set); or "
        "CLASS folders"
    )
    upright: bool = Field(
        default=False, description="rotate photographs by their EXIF orientation; torchvision's ImageFolder does not"
    )
    stream: bool | None = Field(
        default=None, description="decode the files in each epoch; if absent, only if memory is too small for them"
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="number of processes that decode images; if absent, by the number of cores",
    )
    channels: Channels = None
    resize: Resize = None
    crop: Crop = None
    normalise: Normalise = "dataset"
    augment: Augment = None
    validation: ValidationPart = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class FactoryData(Part):
    """Your own data: `factory()` returns the loaders (train, test) or (train, validation, test), which decide
    on samples and batches."""

    train: ClassVar[None] = None
    test: ClassVar[None] = None
    batch_size: ClassVar[int] = 1

    factory: Factory


Data = Annotated[
    Annotated[
        Annotated[NamedData | PackagedData | DocumentationData | DocstringData, Field(discriminator="name")],
        Tag("name data"),
    ]
    | Annotated[NpzData, Tag("npz data")]
    | Annotated[ArrayData, Tag("npz inputs data")]
    | Annotated[FolderData, Tag("folder data")]
    | Annotated[CsvData, Tag("csv data")]
    | Annotated[ParquetData, Tag("parquet data")]
    | Annotated[TextData, Tag("text data")]
    | Annotated[FactoryData, Tag("factory data")],
    told_by("data", "name", "npz", "folder", "csv", "parquet", "text", "factory", beside=("npz", "inputs")),
]
