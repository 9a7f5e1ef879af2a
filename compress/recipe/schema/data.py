"""The images: a known data set, files, or your own factory."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, Tag

from compress.recipe.schema.parts import CIFAR_IMAGE, MNIST_IMAGE, Count, Factory, Part, Text, told_by
from compress.recipe.schema.text_data import DocstringData, DocumentationData, TextData

FirstTrain = Annotated[Count | None, Field(description="use only the first N training images; all if absent")]
FirstTest = Annotated[Count | None, Field(description="use only the first N test images; all if absent")]
BatchSize = Annotated[Count, Field(description="images in a batch")]


class NamedData(Part):
    """A known data set."""

    images: ClassVar[Mapping[str, tuple[int, int, int]]] = {
        "mnist": MNIST_IMAGE,
        "fashion_mnist": MNIST_IMAGE,
        "cifar10": CIFAR_IMAGE,
        "mnist_sample": MNIST_IMAGE,
    }

    name: Literal["mnist", "fashion_mnist", "cifar10", "mnist_sample"]
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class PackagedData(Part):
    """A table or series that is a file inside a Python package."""

    name: Literal["breast_cancer", "japanese_vowels", "shuttle"]
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class NpzData(Part):
    """Arrays `images` (uint8, [N, C, H, W]) and `labels` in numpy files."""

    npz: Text = Field(description="file with the images; without `npz_test`, a part of it is held out for testing")
    npz_test: Text | None = Field(default=None, description="file with the test images")
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class FolderData(Part):
    """Images in one folder per class, below train/ and test/ or directly."""

    folder: Text = Field(description="holds train/CLASS and test/CLASS, or CLASS folders")
    stream: bool | None = Field(
        default=None, description="decode the files in each epoch; if absent, only if memory is too small for them"
    )
    workers: int | None = Field(
        default=None, ge=0, le=1024, description="processes that decode images, 0: none; if absent, by the cores"
    )
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 128


class FactoryData(Part):
    """Your own data: `factory()` returns a pair of loaders, which decide on images and batches themselves."""

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
    | Annotated[FolderData, Tag("folder data")]
    | Annotated[TextData, Tag("text data")]
    | Annotated[FactoryData, Tag("factory data")],
    told_by("data", "name", "npz", "folder", "text", "factory"),
]
