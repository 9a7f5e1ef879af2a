"""Write a network's files without pruning anything: whatever state its weights are in, masks are folded first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

import compress.export
from compress.errors import InputError
from compress.files.checkpoint import load, read_weights
from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.run.building import build_model, require_room
from compress.run.output import whole_folder

FORMATS = ("onnx", "safetensors", "pt2")
FILES = tuple(f"model.{kind}" for kind in FORMATS)


def export(
    source: Path, recipe: str | None, out: Path, formats: Sequence[str] = FORMATS, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """Write `source` in the given formats into the folder `out`, as `model.onnx` and so on.

    Args:
        recipe: a recipe's file or name, for the network that the weights belong to; None where `source` is a
            .safetensors file of this package, which has the recipe in it; that one may not name a factory.
        changes: to the recipe, as "model.latent=16".

    Returns:
        {"files": {name: {"bytes", "difference"?}}}; the difference is that from torch.

    Raises:
        CheckpointError: `source` is no file of weights, or not of this network.
        InputError: an unknown format, or no recipe is known.
        ProofError: a file computes something else; nothing is written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(f"unknown format {unknown[0]!r}: choose from {', '.join(FORMATS)}")
    if recipe is None and changes:
        raise InputError("--set changes a recipe: name it with --recipe")
    wanted = _recipe_of(source) if recipe is None else load_recipe(recipe, changes)
    model = load(source, model=lambda: build_model(wanted.model, wanted.seed)).eval()
    example = torch.zeros(2, *_input_shape(wanted, model))
    note = {"recipe": wanted.model_dump_json()}
    differences: dict[str, float] = {}
    with whole_folder(out, FILES, "export") as folder:
        program = compress.export.trace(model, example) if {"onnx", "pt2"} & set(formats) else None
        if "onnx" in formats:
            differences["model.onnx"] = compress.export.onnx(
                model, folder / "model.onnx", example, metadata=note, program=program
            )
        if "pt2" in formats:
            differences["model.pt2"] = compress.export.pt2(model, folder / "model.pt2", example, program=program)
        if "safetensors" in formats:
            compress.export.safetensors(model, folder / "model.safetensors", metadata=note)
        return {
            "files": {
                file.name: {"bytes": file.stat().st_size}
                | ({"difference": differences[file.name]} if file.name in differences else {})
                for file in (folder / name for name in sorted(FILES))
                if file.exists()
            }
        }


def _recipe_of(source: Path) -> schema.Recipe:
    text = read_weights(source).metadata.get("recipe")
    if text is None:
        raise InputError(f"{source} does not say what network it is of: name a recipe of it with --recipe")
    try:
        found = schema.Recipe.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "all of it"
        raise InputError(
            f"the recipe inside {source} is damaged ({key}: {first['msg']}): name one with --recipe"
        ) from None
    if isinstance(found.model, schema.FactoryModel):
        raise InputError(
            f"the recipe inside {source} would run {found.model.factory}, and no file decides what runs here: "
            "name a recipe that you trust with --recipe"
        )
    require_room(found.model, str(source))
    return found


def _input_shape(recipe: schema.Recipe, model: nn.Module) -> tuple[int, ...]:
    shape = getattr(model, "input_shape", None)
    if shape is None and isinstance(recipe.data, schema.NamedData):
        shape = recipe.data.images[recipe.data.name]
    if shape is None:
        raise InputError(
            f"the shape of one input of {type(model).__name__} is not known: give the module an attribute "
            "`input_shape`, such as (1, 28, 28)"
        )
    return tuple(shape)
