"""The recipe as a whole, and its JSON schema."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, get_args

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from compress.recipe.schema.array_data import ArrayData
from compress.recipe.schema.criterion import CRITERIA
from compress.recipe.schema.data import Data, FactoryData, FolderData, NamedData, NpzData, PackagedData
from compress.recipe.schema.expectation import Bound, Expectation
from compress.recipe.schema.export import USUAL, Export, File, Files, files_of, opset_of
from compress.recipe.schema.images import Statistics
from compress.recipe.schema.model import (
    MLP,
    Autoencoder,
    BertClassifier,
    Classifier,
    ConvAutoencoder,
    ConvClassifier,
    FactoryModel,
    GRULanguageModel,
    LeNet5,
    LeNet300100,
    LSTMClassifier,
    MLPAutoencoder,
    Model,
    Program,
    ResNet20,
    RowLSTM,
    TransformerLanguageModel,
    VisionTransformer,
)
from compress.recipe.schema.parts import Count, Dimension, Listed, Part, SomeDistinct, Text, Word
from compress.recipe.schema.quantization import Quantization
from compress.recipe.schema.removal import REMOVALS
from compress.recipe.schema.stage import Branches, Nodes, Pattern, Stage, Weights
from compress.recipe.schema.table_data import CsvData, ParquetData
from compress.recipe.schema.task import AnyTask, NamedTask, OwnTask, word_of
from compress.recipe.schema.text_data import DocstringData, DocumentationData, TextData
from compress.recipe.schema.training import Training

RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}
"""Device names on Windows, where files and folders cannot have them."""


class Benchmark(Part):
    """How the models are timed."""

    batch_sizes: SomeDistinct[Count] = Field(default=(1, 32), description="samples per call")
    threads: Count = Field(default=1, description="threads of onnxruntime")


class Rivals(Part):
    """What the pruned network is compared with, at the end of `compress apply`."""

    scratch: bool = Field(
        default=False,
        description="train the slim network's shape from random weights, for as many epochs as the dense training and "
        "the retraining together, and for as many as the retraining",
    )


class Recipe(Part):
    """Which parameters to prune, how to remove them, and which files to write."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")] = Field(
        description="letters, digits, _ and -, such as mnist_ae"
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="seeds the initial weights, the order of the batches and other random numbers",
    )
    model: Model = Field(description="the network: {name: autoencoder} or {factory: my_module:build}")
    data: Data = Field(
        description="the data: {name: mnist}, {npz: FILE}, {folder: DIR}, {csv: FILE}, {text: FILE} or "
        "{factory: my_module:loaders}"
    )
    dynamic: (
        Annotated[dict[Text, Annotated[dict[Dimension, Word], Field(min_length=1)]], Field(min_length=1)] | None
    ) = Field(
        default=None,
        description="names of the sizes that vary besides the batch, by input and dimension, such as ids: {1: length}",
    )
    task: AnyTask = Field(description="reconstruct (an autoencoder), classify, or {loss: my_module:loss}")
    expect: Expectation | None = Field(
        default=None,
        description="known metrics of the dense network, such as {accuracy: 0.43}; the run stops if a part of the "
        "test data shows others",
    )
    allow_constant: bool = Field(
        default=False,
        description="whether `apply` may end in a network that is no better than a constant output, such as the mean "
        "image or the most frequent class; else it exits with code 1, after writing its results",
    )
    train: Training | None = Field(
        default=None, description="how `compress train` trains the dense network; omit it if you bring a trained one"
    )
    stages: Listed[Stage] = Field(min_length=1, description="a list of what to prune, in order")
    rivals: Rivals = Field(
        default=Rivals(), validate_default=True, description="what the pruned network is compared with"
    )
    export: Export = Field(
        default=USUAL,
        description="which files of the slim network to write, as a list or as {onnx: {opset: 20}}; int8 is made from "
        "the ONNX file and not equal to it; sparse is slim.sparse.safetensors, without the zeros",
    )
    quantize: Quantization | None = Field(default=None, description="settings of int8, if `export` has int8")
    benchmark: Benchmark = Field(default=Benchmark(), description="how to time the models")

    @field_validator("name")
    @classmethod
    def _folders_can_be_called_like_it(cls, name: str) -> str:
        if name.upper() in RESERVED:
            raise ValueError(
                f"found {name!r}; a folder is named after the recipe, and Windows reserves this name; choose another"
            )
        return name

    @field_validator("data")
    @classmethod
    def _images_fit_the_model(cls, data: Part, info: ValidationInfo) -> Part:
        wanted = getattr(info.data.get("model"), "image", None)
        if isinstance(data, NamedData) and wanted is not None and (found := data.image()) != wanted:
            raise ValueError(
                f"{data.name} has images of {list(found)}, and the model takes {list(wanted)}; "
                "use another model or data set, set the model's `image`, or the data's `resize` and `channels`"
            )
        return data

    @field_validator("train")
    @classmethod
    def _a_program_is_trained(cls, train: Training | None, info: ValidationInfo) -> Training | None:
        if train is not None and isinstance(info.data.get("model"), Program):
            raise ValueError("a program comes with its weights; remove the section, and retrain in the stages")
        return train

    @field_validator("stages")
    @classmethod
    def _a_program_has_no_layers_to_watch(cls, stages: tuple[Stage, ...], info: ValidationInfo) -> tuple[Stage, ...]:
        if isinstance(info.data.get("model"), Program):
            for number, stage in enumerate(stages):
                if stage.criterion.member.watches_layers:
                    raise ValueError(
                        f"entry {number}: the criterion {stage.criterion.kind} watches layers, and a program has only "
                        "operators; use magnitude, norms, lamp, taylor, taylor_square, snip, obd or obs"
                    )
        return stages

    @property
    def files(self) -> tuple[File, ...]:
        """The files to write."""
        return files_of(self.export)

    @property
    def opset(self) -> int | None:
        """Of the ONNX file; None for the exporter's own choice."""
        return opset_of(self.export)

    @field_validator("export")
    @classmethod
    def _int8_has_a_float_file(cls, export: tuple[File, ...] | Files) -> tuple[File, ...] | Files:
        files = files_of(export)
        if "int8" in files and "onnx" not in files:
            raise ValueError("int8 is made of the ONNX file and compared with it: add onnx")
        return export

    @field_validator("quantize")
    @classmethod
    def _int8_is_written(cls, quantize: Quantization | None, info: ValidationInfo) -> Quantization | None:
        if quantize is not None and "int8" not in files_of(info.data.get("export", ("int8",))):
            raise ValueError("no int8 file is written; add int8 to `export`, or remove the section")
        return quantize

    @field_validator("rivals")
    @classmethod
    def _something_can_train_from_the_start(cls, rivals: Rivals, info: ValidationInfo) -> Rivals:
        if not rivals.scratch or not info.data.keys() >= {"model", "train", "stages"}:
            return rivals
        if isinstance(info.data["model"], Program):
            raise ValueError("scratch needs random weights, and a program has only its own; remove the key")
        trains = any(stage.retrain is not None and stage.retrain.epochs for stage in info.data["stages"])
        if info.data["train"] is None and not trains:
            raise ValueError("scratch trains as `train` and `retrain` say, and the recipe has neither; add one of them")
        return rivals

    @field_validator("task")
    @classmethod
    def _task_fits_the_model(cls, task: AnyTask, info: ValidationInfo) -> AnyTask:
        model, word = info.data.get("model"), word_of(task)
        if word is not None and word not in (able := getattr(model, "tasks", (word,))):
            raise ValueError(
                f"found {word!r}, and the model {getattr(model, 'name', '')} can only {' or '.join(able)}; "
                f"use task: {' or '.join(able)}"
            )
        return task


# Pydantic's error locations contain, beside the recipe's own keys, the chosen form of a union.
FORMS: Final[Mapping[str, type[Part] | None]] = {
    "name model": None,
    "autoencoder": Autoencoder,
    "conv_autoencoder": ConvAutoencoder,
    "classifier": Classifier,
    "conv_classifier": ConvClassifier,
    "lenet_300_100": LeNet300100,
    "lenet_5": LeNet5,
    "resnet20": ResNet20,
    "row_lstm": RowLSTM,
    "vision_transformer": VisionTransformer,
    "gru_language_model": GRULanguageModel,
    "transformer_language_model": TransformerLanguageModel,
    "bert_classifier": BertClassifier,
    "mlp": MLP,
    "mlp_autoencoder": MLPAutoencoder,
    "lstm_classifier": LSTMClassifier,
    "program": Program,
    "factory model": FactoryModel,
    "name data": None,
    **dict.fromkeys(get_args(NamedData.model_fields["name"].annotation), NamedData),
    **dict.fromkeys(get_args(PackagedData.model_fields["name"].annotation), PackagedData),
    "python_topics": DocumentationData,
    "python_docstrings": DocstringData,
    "text data": TextData,
    "npz data": NpzData,
    "npz inputs data": ArrayData,
    "one": None,
    "several": None,
    "folder data": FolderData,
    "csv data": CsvData,
    "parquet data": ParquetData,
    "factory data": FactoryData,
    "named task": NamedTask,
    "own task": OwnTask,
    "list of files": None,
    "files by name": Files,
    "nodes target": Nodes,
    "branches target": Branches,
    "weights target": Weights,
    **CRITERIA,
    **REMOVALS,
    "word": None,
    "pattern": Pattern,
    "patterns": None,
    "count": None,
    "share": None,
    "file": None,
    "pair": None,
    "number": None,
    "bound": Bound,
    "statistics": Statistics,
    # of JsonValue
    "dict": None,
    "list": None,
    # of the keys of a mapping
    "[key]": None,
}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a written recipe, for editors; docs/recipe.schema.json holds it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
