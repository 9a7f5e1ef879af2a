"""The network: a known one by name, or your own factory."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, Tag, ValidationInfo, field_validator

from compress.recipe.schema.parts import (
    CIFAR_IMAGE,
    MNIST_IMAGE,
    Classes,
    Count,
    Factory,
    Image,
    Listed,
    Part,
    told_by,
)
from compress.task_words import Word

Widths = Annotated[Listed[Count], Field(min_length=1, max_length=1000)]


class Autoencoder(Part):
    """Dense autoencoder of the paper's Tables IV and V; parts `encoder`, `latent`, `decoder`."""

    tasks: ClassVar[tuple[Word, ...]] = ("reconstruct", "anomaly")

    name: Literal["autoencoder"]
    latent: Count = Field(default=64, description="number of latent nodes")
    image: Image = Field(default=MNIST_IMAGE, description="channels, height, width")


class ConvAutoencoder(Part):
    """Convolutional autoencoder of the paper's Table IV; parts `encoder`, `latent`, `decoder`."""

    tasks: ClassVar[tuple[Word, ...]] = ("reconstruct", "anomaly")
    image: ClassVar[tuple[int, int, int]] = CIFAR_IMAGE

    name: Literal["conv_autoencoder"]
    latent: Count = Field(default=64, description="number of latent nodes")
    width: float = Field(default=1.0, gt=0, le=4, description="share of the channels in the paper's table")


class Classifier(Part):
    """Dense classifier of the paper's Table III; its layers are in `dense`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)

    name: Literal["classifier"]
    image: Image = Field(default=MNIST_IMAGE, description="channels, height, width")
    classes: Classes = Field(default=10, description="number of classes")


class ConvClassifier(Part):
    """Convolutional classifier of the paper's Table III; parts `features` and `dense`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)
    image: ClassVar[tuple[int, int, int]] = CIFAR_IMAGE

    name: Literal["conv_classifier"]
    classes: Classes = Field(default=10, description="number of classes")


class LeNet300100(Part):
    """Dense classifier 784-300-100-10 (LeCun, 1998); its layers are in `dense`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)
    image: ClassVar[tuple[int, int, int]] = MNIST_IMAGE

    name: Literal["lenet_300_100"]
    classes: Classes = Field(default=10, description="number of classes")


class LeNet5(Part):
    """Convolutional classifier 20-50-800-500 (LeCun, 1998, in Caffe's sizes); parts `features` and `dense`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)
    image: ClassVar[tuple[int, int, int]] = MNIST_IMAGE

    name: Literal["lenet_5"]
    classes: Classes = Field(default=10, description="number of classes")


class ResNet20(Part):
    """Residual network of 20 layers (He, 2015); parts `stem`, `blocks` and `head`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)

    name: Literal["resnet20"]
    image: Image = Field(default=CIFAR_IMAGE, description="channels, height, width")
    classes: Classes = Field(default=10, description="number of classes")


class RowLSTM(Part):
    """LSTM that reads an image row by row; parts `lstm` and `head`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)

    name: Literal["row_lstm"]
    image: Image = Field(default=MNIST_IMAGE, description="channels, height, width")
    hidden: Count = Field(default=128, description="nodes of each layer")
    layers: Count = Field(default=2, le=1000, description="number of LSTM layers")
    classes: Classes = Field(default=10, description="number of classes")


class VisionTransformer(Part):
    """Small vision transformer (Dosovitskiy, 2021); parts `patches`, `blocks` and `head`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)

    name: Literal["vision_transformer"]
    image: Image = Field(default=MNIST_IMAGE, description="channels, height, width; multiples of `patch`")
    patch: Count = Field(default=4, description="height and width of the patches that become tokens")
    dim: Count = Field(default=64, description="size of a token; a multiple of `heads`")
    depth: Count = Field(default=4, le=1000, description="number of blocks")
    heads: Count = Field(default=4, description="attention heads of a block")
    hidden: Count = Field(default=128, description="hidden nodes of a block's two-layer network")
    classes: Classes = Field(default=10, description="number of classes")

    @field_validator("patch")
    @classmethod
    def _patches_fill_the_image(cls, patch: int, info: ValidationInfo) -> int:
        _, height, width = info.data.get("image", (1, patch, patch))
        if height % patch or width % patch:
            raise ValueError(f"patches of {patch} x {patch} do not fill images of {height} x {width}")
        return patch

    @field_validator("heads")
    @classmethod
    def _heads_divide_a_token(cls, heads: int, info: ValidationInfo) -> int:
        return _heads_fit(heads, info.data.get("dim", heads))


class GRULanguageModel(Part):
    """GRU that predicts the next token; parts `embedding`, `gru` and `head`."""

    tasks: ClassVar[tuple[Word, ...]] = ("language_model",)

    name: Literal["gru_language_model"]
    vocabulary: Count = Field(default=257, description="number of token ids; at least those of the tokenizer")
    embedding: Count = Field(default=64, description="size of a token")
    hidden: Count = Field(default=128, description="nodes of each layer")
    layers: Count = Field(default=1, le=1000, description="number of GRU layers")


class TransformerLanguageModel(Part):
    """Small causal transformer that predicts the next token; parts `embedding`, `positions`, `blocks` and `head`."""

    tasks: ClassVar[tuple[Word, ...]] = ("language_model",)

    name: Literal["transformer_language_model"]
    vocabulary: Count = Field(default=257, description="number of token ids; at least those of the tokenizer")
    length: Count = Field(default=128, description="largest number of tokens; at least the `length` of the data")
    dim: Count = Field(default=64, description="size of a token; a multiple of `heads`")
    depth: Count = Field(default=2, le=1000, description="number of blocks")
    heads: Count = Field(default=4, description="attention heads of a block")
    hidden: Count = Field(default=256, description="hidden nodes of a block's two-layer network")
    tied: bool = Field(default=False, description="the last layer has the weights of the token embedding")

    @field_validator("heads")
    @classmethod
    def _heads_divide_a_token(cls, heads: int, info: ValidationInfo) -> int:
        return _heads_fit(heads, info.data.get("dim", heads))


class BertClassifier(Part):
    """BertForSequenceClassification of transformers with random weights, for `inputs` of token ids and their mask."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)

    name: Literal["bert_classifier"]
    vocabulary: Count = Field(default=4096, description="number of token ids; at least those of the tokenizer")
    length: Count = Field(default=128, description="largest number of tokens; at least the `length` of the data")
    dim: Count = Field(default=128, description="size of a token; a multiple of `heads`")
    depth: Count = Field(default=2, le=1000, description="number of layers")
    heads: Count = Field(default=4, description="attention heads of a layer")
    hidden: Count = Field(default=512, description="hidden nodes of a layer's two-layer network")
    classes: Classes = Field(default=2, description="number of classes")

    @field_validator("heads")
    @classmethod
    def _heads_divide_a_token(cls, heads: int, info: ValidationInfo) -> int:
        return _heads_fit(heads, info.data.get("dim", heads))


def _heads_fit(heads: int, dim: int) -> int:
    if dim % heads:
        raise ValueError(f"{heads} heads do not divide tokens of {dim}; choose a divisor, or another `dim`")
    return heads


class MLP(Part):
    """Linear layers with ReLU between, for the rows of a table; they are in `dense`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify", "multilabel", "regress")

    name: Literal["mlp"]
    inputs: Count = Field(description="columns of the table")
    hidden: Widths = Field(default=(64, 64), description="nodes of each layer except the last")
    outputs: Count = Field(default=2, description="number of classes, labels or values")


class MLPAutoencoder(Part):
    """Autoencoder of Linear layers with ReLU between, for the rows of a table; parts `encoder`, `latent`, `decoder`."""

    tasks: ClassVar[tuple[Word, ...]] = ("reconstruct", "anomaly")

    name: Literal["mlp_autoencoder"]
    inputs: Count = Field(description="columns of the table")
    hidden: Widths = Field(default=(64, 32), description="nodes of each layer before the latent one")
    latent: Count = Field(default=8, description="number of latent nodes")


class LSTMClassifier(Part):
    """LSTM that reads padded series of unequal lengths; parts `lstm` and `head`."""

    tasks: ClassVar[tuple[Word, ...]] = ("classify",)

    name: Literal["lstm_classifier"]
    inputs: Count = Field(description="channels of a series")
    steps: Count = Field(description="length of the padded series; exported files have this fixed length")
    hidden: Count = Field(default=64, description="nodes of each layer")
    layers: Count = Field(default=1, le=1000, description="number of LSTM layers")
    classes: Classes = Field(default=2, description="number of classes")


class Program(Part):
    """The network of the `.pt2` file passed to `compress apply`; it does not need a class."""

    name: Literal["program"]


class FactoryModel(Part):
    """Your own network: `factory(**args)` returns the module."""

    factory: Factory
    args: dict[str, JsonValue] = Field(default={}, description="arguments of the factory, by name")


Paper = Autoencoder | ConvAutoencoder | Classifier | ConvClassifier
Tabular = MLP | MLPAutoencoder | LSTMClassifier
LanguageModel = GRULanguageModel | TransformerLanguageModel
LeNet = LeNet300100 | LeNet5
NamedModel = Paper | LeNet | ResNet20 | RowLSTM | VisionTransformer | Tabular | LanguageModel | BertClassifier
Model = Annotated[
    Annotated[
        Annotated[NamedModel | Program, Field(discriminator="name")],
        Tag("name model"),
    ]
    | Annotated[FactoryModel, Tag("factory model")],
    told_by("model", "name", "factory"),
]
