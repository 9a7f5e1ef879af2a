"""Check that the file passed as a network's weights is one, and name the way out if it is not."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from compress.errors import CheckpointError
from compress.files.places import place
from compress.recipe.loading import YAML_FILES
from compress.recipe.schema import Recipe
from compress.recipe.shipped import shipped_files
from compress.run.output import SUFFIXES


def require_model(path: Path, way_out: str = "name a file of weights") -> None:
    """Refuse what cannot be weights before any time is spent; the content is read later.

    Raises:
        CheckpointError: a recipe, a folder without weights, or nothing at all; the message ends with `way_out` or a
            better one.
    """
    if path.suffix in YAML_FILES or (not path.exists() and str(path) in shipped_files()):
        raise CheckpointError(f"{path} is a recipe, not a file of weights; {way_out}")
    if path.suffix == ".onnx":
        raise CheckpointError(f"{path} is an ONNX file, not a file of weights; {way_out}")
    place(path, way_out)


def making(model: Path, recipe: Recipe, source: str | Path, changes: Sequence[str] = ()) -> str:
    """How to get the weights that are missing at `model`: the command that trains them, if the recipe can.

    Args:
        source, changes: where the recipe comes from.
    """
    if recipe.train is None:
        return f"name a file of trained weights, since the recipe {recipe.name} has no `train` section"
    out = model if model.suffix in SUFFIXES and not model.exists() else Path("model.pt")
    return f"train the network first: {training(source, changes, out)}"


def training(source: str | Path, changes: Sequence[str], out: Path) -> str:
    """The command that trains a recipe's network, ready to paste."""
    settings = [word for change in changes for word in ("--set", change)]
    return shlex.join(["compress", "train", str(source), "-o", str(out), *settings])
