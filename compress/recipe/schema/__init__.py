"""The schema of recipes: strict, frozen pydantic models, and the JSON schema that editors use to complete recipes.

A recipe holds a model, a data set and stages. If a value has several forms, one of its keys decides the form
(`name`, `kind`, or which of `nodes`/`weights`, `npz`/`folder`/... is present), so that one mistake is one error.
Rules between two keys are field validators of the later key that look back through `info.data`: pydantic runs
those even where other keys are wrong, so all mistakes are reported at once.
"""

from compress.duration import Duration
from compress.recipe.schema.array_data import ArrayData
from compress.recipe.schema.criterion import CRITERIA, AnyCriterion, CriterionPart
from compress.recipe.schema.data import Data, FactoryData, FolderData, NamedData, NpzData, PackagedData
from compress.recipe.schema.expectation import Bound
from compress.recipe.schema.model import (
    MLP,
    Autoencoder,
    BertClassifier,
    Classifier,
    ConvAutoencoder,
    ConvClassifier,
    FactoryModel,
    GRULanguageModel,
    LanguageModel,
    LeNet5,
    LeNet300100,
    LSTMClassifier,
    MLPAutoencoder,
    Model,
    NamedModel,
    Program,
    ResNet20,
    RowLSTM,
    TransformerLanguageModel,
    VisionTransformer,
)
from compress.recipe.schema.parts import CIFAR_IMAGE, MNIST_IMAGE, Part
from compress.recipe.schema.quantization import Quantization
from compress.recipe.schema.recipe import FORMS, Benchmark, Recipe, Rivals, json_schema
from compress.recipe.schema.removal import REMOVALS, AnyRemoval, Regrowth, RemovalPart
from compress.recipe.schema.shaping import Shaping
from compress.recipe.schema.stage import Branches, Nodes, Pattern, Stage, Weights
from compress.recipe.schema.table_data import CsvData, ParquetData, TablePart
from compress.recipe.schema.task import AnyTask, NamedTask, OwnTask, word_of
from compress.recipe.schema.text_data import DocstringData, DocumentationData, TextData
from compress.recipe.schema.training import Retraining, Training

__all__ = [
    "CIFAR_IMAGE",
    "CRITERIA",
    "FORMS",
    "MLP",
    "MNIST_IMAGE",
    "REMOVALS",
    "AnyCriterion",
    "AnyRemoval",
    "AnyTask",
    "ArrayData",
    "Autoencoder",
    "Benchmark",
    "BertClassifier",
    "Bound",
    "Branches",
    "Classifier",
    "ConvAutoencoder",
    "ConvClassifier",
    "CriterionPart",
    "CsvData",
    "Data",
    "DocstringData",
    "DocumentationData",
    "Duration",
    "FactoryData",
    "FactoryModel",
    "FolderData",
    "GRULanguageModel",
    "LSTMClassifier",
    "LanguageModel",
    "LeNet5",
    "LeNet300100",
    "MLPAutoencoder",
    "Model",
    "NamedData",
    "NamedModel",
    "NamedTask",
    "Nodes",
    "NpzData",
    "OwnTask",
    "PackagedData",
    "ParquetData",
    "Part",
    "Pattern",
    "Program",
    "Quantization",
    "Recipe",
    "Regrowth",
    "RemovalPart",
    "ResNet20",
    "Retraining",
    "Rivals",
    "RowLSTM",
    "Shaping",
    "Stage",
    "TablePart",
    "TextData",
    "Training",
    "TransformerLanguageModel",
    "VisionTransformer",
    "Weights",
    "json_schema",
    "word_of",
]
