"""`compress inspect`: the content of a file, and the recipe in its metadata."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from compress.documents import FileContents
from compress.errors import InputError
from compress.export import contents
from compress.files.checkpoint import WeightsFile
from compress.files.places import place, size_of
from compress.recipe import schema
from compress.recipe.loading import brief_yaml, resolved_yaml
from compress.run import noted
from compress.run.building import example_of
from compress.run.contract import noted_contract
from compress.run.entries import recipe_values


def inspect(path: str | os.PathLike[str], *, trusted: bool = False) -> FileContents:
    """`contents.inspect`, with the recipe in the file's metadata, if any, as data and as YAML.

    The network of weights is known if the recipe names one of this package's. Factories are not called: inspecting a
    file does not run foreign code, unless it is a program and `trusted`.

    Returns:
        ... and {"recipe": {"brief": YAML, "whole": YAML, "values": {...}}}, and the file's input contract.

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
    with suppress(InputError):  # a damaged one is shown as it is, among the notes
        if (contract := noted_contract(found["metadata"], os.fspath(path))) is not None:
            found["contract"] = contract
    return found


def _recipe(metadata: dict[str, str], source: str) -> schema.Recipe | None:
    """The recipe, or None if it is missing or of another version; its text is in the metadata in any case."""
    try:
        return noted.recipe_of(metadata, source)
    except InputError:
        return None


def _network(weights: WeightsFile, source: str) -> Callable[[], contents.Network] | None:
    recipe = _recipe(weights.metadata, source)
    if recipe is None or isinstance(recipe.model, schema.FactoryModel | schema.Program):
        return None
    wanted, size = recipe.model, size_of(place(Path(source)))
    return lambda: (noted.build(recipe, weights, source, size), example_of(wanted))
