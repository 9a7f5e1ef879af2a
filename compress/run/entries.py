"""A recipe's entries in documents: the one place where pydantic's untyped dumps become typed entries."""

from typing import cast

from compress.recipe import schema
from compress.results import KindEntry, RecipeValues, RemovalEntry, Taken, TargetKind


def recipe_values(recipe: schema.Recipe) -> RecipeValues:
    """The recipe with its defaults."""
    return cast(RecipeValues, recipe.model_dump(mode="json"))


def kind_of(target: schema.Nodes | schema.Branches | schema.Weights) -> TargetKind:
    kinds: dict[type, TargetKind] = {schema.Nodes: "nodes", schema.Branches: "branches", schema.Weights: "weights"}
    return kinds[type(target)]


def taken(stage: schema.Stage, target: str, *, asked: float, achieved: float, pruned: int, of: int) -> Taken:
    """What a stage prunes, how, and how much; the figures are in the measure of its level."""
    return {
        "kind": kind_of(stage.target),
        "target": target,
        "criterion": cast(KindEntry, stage.criterion.model_dump()),
        "removal": cast(RemovalEntry, stage.removal.model_dump(mode="json")),
        "measure": stage.level[0],
        "asked": asked,
        "achieved": achieved,
        "pruned": pruned,
        "of": of,
    }
