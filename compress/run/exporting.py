"""Write a network's files without pruning anything; masks, if it has any, are folded first."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import compress.export
from compress.data.loaders import from_factory
from compress.documents import Exported, ExportedFile
from compress.errors import InputError
from compress.export.onnx_file import converted
from compress.export.reading_back import read_back
from compress.export.weights_file import rounded
from compress.files.checkpoint import read_weights, rebuild
from compress.files.places import place, size_of
from compress.options import check, require_word
from compress.recipe import schema
from compress.recipe.loading import load_recipe
from compress.results import CONTRACT, OPSETS, contract_text
from compress.run import building, noted
from compress.run.building import build_model, fresh_network
from compress.run.contract import contract_of, noted_contract
from compress.run.output import whole_folder
from compress.run.shareable import shareable_recipe, without_folders

USUAL = ("onnx", "safetensors", "pt2")
SPARSE, SPARSE_INT8 = "sparse", "sparse_int8"
FORMATS = {
    **{kind: f"model.{kind}" for kind in USUAL},
    SPARSE: "model.sparse.safetensors",
    SPARSE_INT8: "model.sparse.int8.safetensors",
}
"""The file of each format."""

FILES = tuple(FORMATS.values())


def export(
    source: Path,
    recipe: str | None,
    out: Path,
    formats: Sequence[str] = USUAL,
    changes: Sequence[str] = (),
    *,
    opset: int | None = None,
) -> Exported:
    """Write `source` in the given formats into the folder `out`, as `model.onnx` and so on.

    How samples are prepared, and the names of the classes, are those in the contract of `source`, if it has one: the
    data are not read here.

    Args:
        recipe: a recipe's file or name, for the network that the weights belong to; None if `source` is a
            .safetensors file of this package, which contains the recipe; that one may not name a factory.
        changes: overrides of the recipe, as "model.latent=16".
        opset: of the ONNX file; by default the recipe's, or else the exporter's own choice.

    Returns:
        The written files, by name.

    Raises:
        CheckpointError: `source` is not a file of weights, or not of this network.
        InputError: the format or the opset is unknown, the recipe is missing, or the contract of `source` is damaged.
        ProofError: a file does not compute the same; nothing is written.
    """
    for name in formats:
        require_word("--format", name, FORMATS)
    if recipe is None and changes:
        raise InputError("--set changes a recipe: name it with --recipe")
    if opset is not None:
        check("opset", opset, int, ge=OPSETS[0], le=OPSETS[1])
    wanted, model, metadata = network_of(source, recipe, changes)
    known = noted_contract(metadata, str(source))
    example, dynamic = example_of(wanted, model), wanted.dynamic
    differences: dict[str, float] = {}
    with whole_folder(out, FILES, "export") as folder:
        program = compress.export.trace(model, example, dynamic=dynamic) if {"onnx", "pt2"} & set(formats) else None
        graph = None
        if "onnx" in formats:
            graph = converted(model, example, dynamic=dynamic, opset=opset or wanted.opset, program=program)
        contract = contract_of(
            model,
            example,
            dynamic,
            preparation=None if known is None else known["preparation"],
            classes=None if known is None else known["classes"],
            opset=None if graph is None else graph.opset,
        )
        text = contract_text(without_folders(contract))
        note = {"recipe": shareable_recipe(wanted).model_dump_json(), CONTRACT: text}
        if graph is not None:
            differences["model.onnx"] = graph.write(folder / "model.onnx", note)
        if "pt2" in formats:
            differences["model.pt2"] = compress.export.pt2(
                model, folder / "model.pt2", example, dynamic=dynamic, metadata={CONTRACT: text}, program=program
            )
        if "safetensors" in formats:
            compress.export.safetensors(model, folder / "model.safetensors", metadata=note)
        for kind in (SPARSE, SPARSE_INT8):
            if kind in formats:
                compress.export.sparse(model, folder / FORMATS[kind], int8=kind == SPARSE_INT8, metadata=note)
        written = {folder / FORMATS[kind]: rounded(model) if kind == SPARSE_INT8 else model for kind in formats}
        back = read_back(written, example, network=fresh_network(wanted, source), dynamic=dynamic)
        files: dict[str, ExportedFile] = {
            name: {"bytes": (folder / name).stat().st_size} for name in sorted(FILES) if (folder / name).exists()
        }
    for name, difference in back.items():
        if name == FORMATS[SPARSE_INT8]:  # what it is equal to is not the network
            files[name]["rounded"] = True
        else:
            files[name]["difference"] = max(difference, differences.get(name, 0.0))
    return {"files": files}


def network_of(
    source: Path, recipe: str | None, changes: Sequence[str]
) -> tuple[schema.Recipe, nn.Module, dict[str, str]]:
    """The network of a file of weights, the recipe that describes it (the one named, or that in the file), and the
    file's metadata.
    """
    if recipe is not None:
        wanted = load_recipe(recipe, changes)
        weights = read_weights(source)
        return wanted, rebuild(weights, lambda: build_model(wanted.model, wanted.seed), str(source)), weights.metadata
    weights = read_weights(source)
    found = noted.recipe_of(weights.metadata, str(source))
    if found is None:
        raise InputError(f"{source} does not name its network: name a recipe for it with --recipe")
    if isinstance(found.model, schema.FactoryModel):
        raise InputError(
            f"the recipe inside {source} would run {found.model.factory}, and files may not choose the code that runs: "
            "name a recipe that you trust with --recipe"
        )
    return found, noted.build(found, weights, str(source), size_of(place(source))), weights.metadata


def example_of(recipe: schema.Recipe, model: nn.Module) -> object:
    """What the network is called with; only shapes and types matter, and the range of integers."""
    if not isinstance(recipe.model, schema.FactoryModel | schema.Program):
        return building.example_of(recipe.model).mapped(torch.clone)
    if isinstance(recipe.data, schema.FactoryData) and not hasattr(model, "input_shape"):
        return from_factory(recipe.data.factory).example
    return torch.zeros(2, *_input_shape(recipe, model))


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
