"""Which weights or nodes go first."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from compress.recipe.schema.parts import Count, Part, spelled_out


class Magnitude(Part):
    """The smallest |weight| goes first; for nodes, the smallest norm of the node's rows."""

    kind: Literal["magnitude"]


class Random(Part):
    """Chance, by the recipe's seed."""

    kind: Literal["random"]


def _samples_form(value: object) -> str:
    return "word" if isinstance(value, str) else "count"


Samples = Annotated[
    Annotated[Literal["all"], Tag("word")] | Annotated[Count, Tag("count")], Discriminator(_samples_form)
]


class Skeletonization(Part):
    """The node whose factor a has the smallest |dE/da| goes first (Mozer & Smolensky, 1988; paper, eq. 2-3)."""

    kind: Literal["skeletonization"]
    error: Literal["loss", "linear"] = Field(
        default="loss", description="E: the training loss, or the linear error sum|t - o|"
    )
    reduce: Literal["sum", "abs", "square"] = Field(
        default="square",
        description="how the images' derivatives add up: as they are (the paper), absolute, or squared",
    )
    samples: Samples = Field(5000, description="score on the first so many training images, or on all")


class ScaledMagnitude(Part):
    """The smallest |weight| * sqrt(fan-in) goes first: layers of small weights are not emptied."""

    kind: Literal["scaled_magnitude"]


class Lamp(Part):
    """The smallest w^2, as a share of all squares in its tensor that are as large, goes first (Lee, 2021)."""

    kind: Literal["lamp"]


class Gradient(Part):
    """The weight on which the loss hangs least, by |w g| (taylor), (w g)^2 or |w mean g| (snip), goes first.

    For a node, w g is summed over all columns that read it.
    """

    kind: Literal["taylor", "taylor_square", "snip"]
    samples: Samples = Field(5000, description="score on the first so many training images, or on all")


class Obd(Part):
    """The smallest w^2 h / 2, with h the diagonal of the Fisher information, goes first (LeCun, 1990)."""

    kind: Literal["obd"]
    samples: Samples = Field(1000, description="score on the first so many training images, or on all")


class Norms(Part):
    """The node with the smallest norm of its rows times norm of its columns goes first."""

    kind: Literal["norms"]


class Variance(Part):
    """The node whose activation, as its readers see it, varies least between images goes first."""

    kind: Literal["variance"]
    samples: Samples = Field(5000, description="score on the first so many training images, or on all")


class PrincipalAxes(Part):
    """Directions instead of nodes: the layer that reads them is taken apart along the principal axes of what it reads,
    and the axes along which the images vary least go first."""

    kind: Literal["principal_axes"]
    samples: Samples = Field(5000, description="score on the first so many training images, or on all")


class Ablation(Part):
    """The node without which the loss rises least goes first: a pass over the images for each node."""

    kind: Literal["ablation"]
    samples: Samples = Field(1000, description="score on the first so many training images, or on all")


CriterionName = Literal[
    "magnitude",
    "random",
    "scaled_magnitude",
    "lamp",
    "taylor",
    "taylor_square",
    "snip",
    "obd",
    "skeletonization",
    "norms",
    "variance",
    "ablation",
    "principal_axes",
]
ForWeights = ScaledMagnitude | Lamp | Obd
ForNodes = Skeletonization | Norms | Variance | Ablation | PrincipalAxes
AnyCriterion = Annotated[Magnitude | Random | Gradient | ForWeights | ForNodes, Field(discriminator="kind")]
Criterion = Annotated[AnyCriterion, BeforeValidator(spelled_out, json_schema_input_type=CriterionName | AnyCriterion)]
