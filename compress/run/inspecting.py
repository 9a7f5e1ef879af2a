"""`compress inspect`: what a file holds, and what the recipe that was noted in it says about that."""

import os

import torch

from compress.documents import FileContents
from compress.errors import RecipeError
from compress.export import contents
from compress.files.checkpoint import Weights, rebuild
from compress.recipe import schema
from compress.recipe.loading import brief_yaml, resolved_yaml
from compress.recipe.noted import noted_recipe
from compress.run.building import build_model, require_room
from compress.run.entries import recipe_values


def inspect(path: str | os.PathLike[str], *, trusted: bool = False) -> FileContents:
    """`contents.inspect`, and beside it, where a recipe is noted in the file, "recipe" as data and as YAML.

    The network of weights is known where the recipe names one of this package's. A factory is not called: to look
    into a file runs nobody's code, unless it is a program and `trusted`.

    Returns:
        ... and {"recipe": {"brief": YAML, "whole": YAML, "values": {...}}}.

    Raises:
        InputError: as `contents.inspect`.
    """
    found = contents.inspect(path, lambda weights: _network(weights, os.fspath(path)), trusted=trusted)
    recipe = _recipe(found["metadata"], os.fspath(path))
    if recipe is not None:
        found["recipe"] = {
            "brief": brief_yaml(recipe),
            "whole": resolved_yaml(recipe),
            "values": recipe_values(recipe),
        }
    return found


def _recipe(metadata: dict[str, str], source: str) -> schema.Recipe | None:
    """None as well where what is noted is no recipe of this version: the text is in the metadata all the same."""
    try:
        return noted_recipe(metadata["recipe"], source) if "recipe" in metadata else None
    except RecipeError:
        return None


def _network(weights: Weights, source: str) -> contents.Network | None:
    recipe = _recipe(weights.metadata, source)
    if recipe is None or isinstance(recipe.model, schema.FactoryModel | schema.Program):
        return None
    wanted = recipe.model
    require_room(wanted, source)
    network = rebuild(weights, lambda: build_model(wanted, recipe.seed), source)
    return network, torch.zeros(2, *wanted.image)
