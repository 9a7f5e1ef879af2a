"""Reads untrusted ONNX models, if all of their data is in the file itself, or beside it."""

import os
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.documents import FileInput
from compress.errors import InputError
from compress.export.program_file import quiet
from compress.files.foreign import TIMES, confined, reading
from compress.wording import count_of

if TYPE_CHECKING:
    import onnx_ir

_MOST_NODES = 100_000
"""The most nodes of a model with its functions inlined, as in onnx and onnxruntime."""


def read_onnx(path: str | os.PathLike[str]) -> "onnx_ir.Model":
    """The model; tensors in other files are not read until they are used.

    Raises:
        InputError: it is not an ONNX model, or its data is outside of its folder, in a file that is not ordinary, or
            beyond the end of its file, or its functions represent too many nodes.
    """
    import onnx_ir

    file = Path(path).absolute()  # a bare name has no folder, and onnx_ir would then check none
    with reading(InputError, f"{path} cannot be read as an ONNX model"):
        with quiet():  # it warns of what is odd, with names from the file
            model = onnx_ir.load(file)
        _require_flat(model, path)
        for tensor in _external(model):
            _require_beside(tensor, file.parent, path)
        _require_own(model, file, path)
    return model


def onnx_size(path: str | os.PathLike[str]) -> int:
    """Bytes of the model and its data files, measured in a child process of bounded time and memory.

    Raises:
        InputError: as `read_onnx`.
    """
    import onnx  # noqa: F401
    import onnx_ir.passes.common  # noqa: F401 (here, so that not every child has to)

    file = Path(path).absolute()
    size: int = confined(
        lambda: _bytes_of(read_onnx(path), file),
        InputError,
        f"{path} cannot be read as an ONNX model",
        file.stat().st_size,
    )
    return size


def inputs_of(model: "onnx_ir.Model") -> list[FileInput]:
    """What the model takes; a size that varies without a name is "?"."""
    weights = set(model.graph.initializers)
    return [
        {
            "name": str(value.name),
            "shape": [size if isinstance(size, int) else str(size.value or "?") for size in value.shape or ()],
            "dtype": "?" if value.dtype is None else value.dtype.name.lower(),
        }
        for value in model.graph.inputs
        if value.name not in weights
    ]


def let_go(model: "onnx_ir.Model") -> None:
    """Take the weights out of a model that is no longer used.

    A graph refers to itself, so that it would keep them until the garbage collector runs; and torch's converter keeps
    the graphs that it has made.
    """
    for value in model.graph.initializers.values():
        value.const_value = None


def quantizes(operator: str) -> bool:
    """Whether an operator is one of a quantized model."""
    return (
        "Quantize" in operator or operator.endswith(("Integer", "NBits")) or operator.startswith(("QLinear", "QGemm"))
    )


def _require_flat(model: "onnx_ir.Model", path: str | os.PathLike[str]) -> None:
    """Refuse functions whose calls make millions of nodes, or never end, in a small file."""
    functions = {key: list(function.all_nodes()) for key, function in model.functions.items()}
    total: dict[Any, int] = {}
    order = TopologicalSorter(
        {key: {node.op_identifier() for node in nodes} & functions.keys() for key, nodes in functions.items()}
    )
    for key in order.static_order():  # CycleError where one calls itself
        total[key] = sum(total.get(node.op_identifier(), 1) for node in functions[key])
        if total[key] > _MOST_NODES:
            raise InputError(f"{path} has the function {key[1]!r}, which stands for more than {_MOST_NODES:,} nodes")
    nodes = sum(total.get(node.op_identifier(), 1) for node in model.graph.all_nodes())
    if nodes > _MOST_NODES:
        raise InputError(f"{path} stands for {count_of(nodes, 'node')}, and {_MOST_NODES:,} are the most that are read")


def _require_own(model: "onnx_ir.Model", file: Path, path: str | os.PathLike[str]) -> None:
    """Refuse tensors that share external data and claim far more than it has."""
    claimed, size = sum(tensor.nbytes for tensor in _external(model)), _bytes_of(model, file)
    if claimed > TIMES * size:
        raise InputError(f"{path} has {size:,} bytes with its data, and its tensors claim {claimed:,}")


def _bytes_of(model: "onnx_ir.Model", file: Path) -> int:
    places = {file, *((file.parent / tensor.location).resolve() for tensor in _external(model))}
    return sum(place.stat().st_size for place in places)


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
        raise InputError(f"{name}, which is not a file; put the data beside the model")
    end = (tensor.offset or 0) + (tensor.nbytes if tensor.length is None else tensor.length)
    if (tensor.offset or 0) < 0 or end > place.stat().st_size or end < (tensor.offset or 0):
        raise InputError(f"{name}, which ends before it: {end:,} of {place.stat().st_size:,} bytes; get it whole")
