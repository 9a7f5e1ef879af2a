"""What a recipe may say: strict, frozen pydantic models, and the JSON schema that editors complete recipes with.

A recipe holds a model, a data set and stages; where a key has several forms, the form is told by one key of it
(`name`, `kind`, or which of `nodes`/`weights`, `npz`/`folder`/... is there), so that a mistake is one mistake.
Rules between keys stand at the later of the two, as field validators that look back through `info.data`: pydantic
runs those even where other keys are wrong, and so everything is reported at once.
"""

from compress.duration import Duration
from compress.recipe.schema.criterion import (
    Ablation,
    AnyCriterion,
    CriterionName,
    Gradient,
    Lamp,
    Magnitude,
    Norms,
    Obd,
    PrincipalAxes,
    Random,
    ScaledMagnitude,
    Skeletonization,
    Variance,
)
from compress.recipe.schema.data import Data, FactoryData, FolderData, NamedData, NpzData
from compress.recipe.schema.model import (
    Autoencoder,
    Classifier,
    ConvAutoencoder,
    ConvClassifier,
    FactoryModel,
    Model,
    NamedModel,
    Program,
    ResNet20,
    RowLSTM,
    VisionTransformer,
)
from compress.recipe.schema.parts import CIFAR_IMAGE, MNIST_IMAGE, Part, Task
from compress.recipe.schema.recipe import FORMS, Benchmark, Recipe, json_schema
from compress.recipe.schema.removal import (
    AnyRemoval,
    FilterRemoval,
    GradualRemoval,
    HardRemoval,
    PenaltyRemoval,
    Regrowth,
    SoftRemoval,
)
from compress.recipe.schema.stage import Nodes, Stage, Weights
from compress.recipe.schema.task import OwnTask, has_accuracy
from compress.recipe.schema.training import Retraining, Training

__all__ = [
    "CIFAR_IMAGE",
    "FORMS",
    "MNIST_IMAGE",
    "Ablation",
    "AnyCriterion",
    "AnyRemoval",
    "Autoencoder",
    "Benchmark",
    "Classifier",
    "ConvAutoencoder",
    "ConvClassifier",
    "CriterionName",
    "Data",
    "Duration",
    "FactoryData",
    "FactoryModel",
    "FilterRemoval",
    "FolderData",
    "Gradient",
    "GradualRemoval",
    "HardRemoval",
    "Lamp",
    "Magnitude",
    "Model",
    "NamedData",
    "NamedModel",
    "Nodes",
    "Norms",
    "NpzData",
    "Obd",
    "OwnTask",
    "Part",
    "PenaltyRemoval",
    "PrincipalAxes",
    "Program",
    "Random",
    "Recipe",
    "Regrowth",
    "ResNet20",
    "Retraining",
    "RowLSTM",
    "ScaledMagnitude",
    "Skeletonization",
    "SoftRemoval",
    "Stage",
    "Task",
    "Training",
    "Variance",
    "VisionTransformer",
    "Weights",
    "has_accuracy",
    "json_schema",
]
