"""`compress inspect`: what a file holds, and what the recipe that was noted in it says about that."""

import os
from collections.abc import Callable

from compress.documents import FileContents
from compress.errors import InputError
from compress.export import contents
from compress.files.checkpoint import WeightsFile
from compress.recipe import schema
from compress.recipe.loading import brief_yaml, resolved_yaml
from compress.run import noted
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
        return noted.recipe_of(metadata, source)
    except InputError:
        return None


def _network(weights: WeightsFile, source: str) -> Callable[[], contents.Network] | None:
    recipe = _recipe(weights.metadata, source)
    if recipe is None or isinstance(recipe.model, schema.FactoryModel | schema.Program):
        return None
    wanted, size = recipe.model, os.path.getsize(source)
    return lambda: (noted.build(recipe, weights, source, size), noted.example(wanted))
