"""An ONNX model from anybody: read only if all of its data lies in the file itself, or beside it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from compress.errors import InputError
from compress.export.program_file import quiet

if TYPE_CHECKING:
    import onnx_ir


def read_onnx(path: str | os.PathLike[str]) -> "onnx_ir.Model":
    """The model; tensors that lie in other files stay there until they are used.

    Raises:
        InputError: it is no ONNX model, or data of it lies outside of its folder, or in no ordinary file, or ends
            after its file.
    """
    import onnx_ir

    file = Path(path).absolute()  # a bare name has no folder, and onnx_ir would then check none
    try:
        with quiet():  # it warns of what is odd, with names from the file
            model = onnx_ir.load(file)
        for tensor in _external(model):
            _require_beside(tensor, file.parent, path)
    except InputError:
        raise
    except Exception as error:  # protobuf's and the reader's errors have no common base
        raise InputError(f"{path} cannot be read as an ONNX model: {error}") from error
    return model


def let_go(model: "onnx_ir.Model") -> None:
    """Take the weights out of a model that is done with.

    A graph refers to itself, so that it would hold them until somebody looks for such garbage; and torch's converter
    holds on to the graphs that it has made.
    """
    for value in model.graph.initializers.values():
        value.const_value = None


def _external(model: "onnx_ir.Model") -> Iterator["onnx_ir.ExternalTensor"]:
    import onnx_ir

    owners: list[onnx_ir.Graph | onnx_ir.Function] = [model.graph, *model.functions.values()]
    nodes = [node for owner in owners for node in owner.all_nodes()]
    attributes = [attribute for node in nodes for attribute in node.attributes.values()]
    graphs = {id(node.graph): node.graph for node in nodes} | {id(model.graph): model.graph}
    for graph in graphs.values():
        for value in getattr(graph, "initializers", {}).values():  # a function has none
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                yield value.const_value
    for attribute in attributes:
        held = attribute.value if isinstance(attribute.value, list | tuple) else [attribute.value]
        yield from (tensor for tensor in held if isinstance(tensor, onnx_ir.ExternalTensor))


def _require_beside(tensor: "onnx_ir.ExternalTensor", folder: Path, path: str | os.PathLike[str]) -> None:
    place = folder / tensor.location
    name = f"{path}: the tensor {tensor.name!r} lies in {os.fspath(tensor.location)!r}"
    if Path(tensor.location).is_absolute() or not place.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{name}, outside of the model's folder, which is not read; put the data beside the model")
    if not place.is_file():
        raise InputError(f"{name}, which is no file; put the data beside the model")
    end = (tensor.offset or 0) + (tensor.nbytes if tensor.length is None else tensor.length)
    if (tensor.offset or 0) < 0 or end > place.stat().st_size or end < (tensor.offset or 0):
        raise InputError(f"{name}, which ends before it: {end:,} of {place.stat().st_size:,} bytes; get it whole")
