"""`inspect`: a file's layers and tensors with shape, type and zeros, multiply-adds, nodes, and its metadata."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from compress.documents import FileBranches, FileContents, FileLayer, FileNodes, FileTensor, LookedInto
from compress.errors import CheckpointError, InputError, UnsupportedModelError
from compress.export.onnx_reading import inputs_of, onnx_size, quantizes, read_onnx
from compress.export.program_file import load_program, quiet, runnable
from compress.export.program_reading import program_metadata, program_weights
from compress.files.checkpoint import WeightsFile, read_weights
from compress.files.foreign import confined, reason
from compress.files.places import SUFFIXES, files_of, is_weights, place, size_of
from compress.graph import stats
from compress.graph.branches import Branch, ResidualBranches, residual_branches
from compress.graph.coupling import Couplings, couplings
from compress.graph.flow import layer_of
from compress.inputs import Inputs
from compress.slimming.edits import edits_from_json, graph_inputs
from compress.slimming.shrink import Dead, dead_in
from compress.slimming.slim_graph import limits

if TYPE_CHECKING:
    import onnx_ir

Network = tuple[nn.Module, Tensor | Inputs]
"""A network in evaluation mode, and an input [N, ...] for it."""


def _unknown(weights: WeightsFile) -> None:
    return None


def inspect(
    path: str | os.PathLike[str],
    network_of: Callable[[WeightsFile], Callable[[], Network | None] | None] = _unknown,
    *,
    trusted: bool = False,
) -> FileContents:
    """Describe a file of weights, a program or an ONNX model; it is read once.

    Args:
        network_of: builds the network that weights belong to, with them in it, in a child process of bounded time and
            memory; None where it is not known.
        trusted: let torch load a program, which may run code from the file (docs/security.md); else its tensors are
            read and its nodes and multiply-adds are not.

    Returns:
        Keys that cannot be known are absent. Masks of a model that is being pruned count as folded; multiply-adds are
        those for one sample, as `stats.measure` counts them.

    Raises:
        InputError: the file does not exist, is damaged, or is of another kind.
    """
    path = Path(path)
    found_at = place(path, "name a file to look into")
    if is_weights(found_at.file):
        weights = read_weights(path)
        known = _noted(network_of(weights), path)
        described = _described(weights.only(str(path)).items())
        return _with_limits(_found(path, described, weights.metadata, known))
    if path.suffix == ".onnx":
        what = f"{path} cannot be inspected"
        found: FileContents = confined(lambda: _onnx(path), InputError, what, onnx_size(path))
        return found
    if path.suffix == ".pt2":
        described = _described(program_weights(path).items())
        known = (
            _look_into(lambda: _runnable(load_program(path)))
            if trusted
            else Known(found={"note": _UNTRUSTED}, per_layer={})
        )
        return _found(path, described, program_metadata(path), known)
    raise InputError(f"{path} ends in {path.suffix!r}: known are {', '.join(SUFFIXES)}, .onnx and .pt2")


_UNTRUSTED = (
    "its nodes and multiply-adds are not known: torch.export.load may run code from the file; where you trust it, load "
    "it with --trust (from Python: trusted=True)"
)


class Known(TypedDict):
    """Facts about a network beside its tensors, and the multiply-adds of its layers; as JSON, for another process."""

    found: LookedInto
    per_layer: dict[str, int]


def _found(path: Path, described: list[FileTensor], metadata: Mapping[str, str], known: Known) -> FileContents:
    """The description of a file."""
    return {
        "file": str(path),
        "format": _format(path),
        "bytes": size_of(place(path)),
        "entries": sum(tensor["entries"] for tensor in described),
        "zeros": sum(tensor["zeros"] for tensor in described),
        **known["found"],
        "layers": [_layer(name, own, known["per_layer"]) for name, own in _grouped(described).items()],
        "tensors": described,
        "metadata": dict(metadata),
    }


def _format(path: Path) -> str:
    """The suffix of the file, or of its shards."""
    return files_of(place(path))[-1].suffix[1:]


def _with_limits(found: FileContents) -> FileContents:
    """What is said of a slim network that is a graph; its sizes are in the metadata."""
    with suppress(CheckpointError):  # users of the file see it
        shapes = graph_inputs(edits_from_json(found["metadata"].get("shape_edits", "[]")))
        if shapes:
            found["graph"] = limits(shapes)
    return found


def _described(tensors: Iterable[tuple[str, Tensor]]) -> list[FileTensor]:
    return [_describe(name, tensor) for name, tensor in tensors]


def _describe(name: str, tensor: Tensor) -> FileTensor:
    nonzero = (tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor) != 0  # float8
    found: FileTensor = {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "entries": tensor.numel(),
        "zeros": tensor.numel() - int(nonzero.count_nonzero()),
    }
    if tensor.ndim > 1 and tensor.numel():
        found["zero_rows"], found["zero_columns"] = (_without_any(nonzero, dim) for dim in (0, 1))
    return found


def _without_any(nonzero: Tensor, dim: int) -> int:
    """How many slices along a dimension are all zeros."""
    along = nonzero.movedim(dim, 0).flatten(1).any(1)
    return len(along) - int(along.count_nonzero())


def _grouped(described: Iterable[FileTensor]) -> dict[str, list[FileTensor]]:
    """Tensors of floating-point numbers by layer; a norm's statistics count with its scale."""
    floats = [tensor for tensor in described if "float" in tensor["dtype"]]
    layers = {layer_of(tensor["name"]) for tensor in floats}
    found: dict[str, list[FileTensor]] = {}
    for tensor in floats:
        path = tensor["name"].rpartition(".")[0]
        found.setdefault(path if path in layers else layer_of(tensor["name"]), []).append(tensor)
    return found


def _layer(name: str, tensors: list[FileTensor], per_layer: Mapping[str, int]) -> FileLayer:
    matrices = [tensor for tensor in tensors if "zero_rows" in tensor]
    found: FileLayer = {
        "name": name,
        "tensors": [tensor["name"] for tensor in tensors],
        "shape": max(tensors, key=lambda tensor: tensor["entries"])["shape"],
        "entries": sum(tensor["entries"] for tensor in tensors),
        "zeros": sum(tensor["zeros"] for tensor in tensors),
        "weights": sum(tensor["entries"] for tensor in matrices),
        "rows": sum(tensor["shape"][0] for tensor in matrices),
        "zero_rows": sum(tensor["zero_rows"] for tensor in matrices),
        "columns": sum(tensor["shape"][1] for tensor in matrices),
        "zero_columns": sum(tensor["zero_columns"] for tensor in matrices),
    }
    if name in per_layer:
        found["macs"] = per_layer[name]
    return found


# --- the network of a file ---


def _noted(network: Callable[[], Network | None] | None, path: Path) -> Known:
    """`_look_into` a network that a file names, in bounded time and memory."""
    if network is None:
        return {"found": {}, "per_layer": {}}
    try:
        found: Known = confined(
            lambda: _look_into(network), InputError, "its nodes and multiply-adds are not known", size_of(place(path))
        )
    except InputError as error:
        return {"found": {"note": str(error)}, "per_layer": {}}
    return found


def _look_into(network_of: Callable[[], Network | None]) -> Known:
    """The nodes and multiply-adds of a network, or a note of why they are not known."""
    found: LookedInto = {}
    try:
        network = network_of()
        if network is None:
            return {"found": {}, "per_layer": {}}
        known = couplings(*network)
        dead = _cut_by_slim(network[0], known, found)
        nodes = {} if dead is None else dead.nodes
        found["nodes"] = _nodes(known, {coupling.name: len(cut) for coupling, cut in nodes.items()})
        branches = residual_branches(network[0], known.trace)
        if branches.found:
            found["branches"] = _branches(branches, () if dead is None else dead.branches)
        found["macs"] = stats.measure(*network).macs
    except Exception as error:  # whatever the program raises, its tensors can be described
        found["note"] = reason(error)
        return {"found": found, "per_layer": {}}
    macs = {name: count * math.prod(known.shapes[name]) for name, count in known.positions.items()}
    return {"found": found, "per_layer": _per_layer(macs)}


def _cut_by_slim(model: nn.Module, known: Couplings, found: LookedInto) -> Dead | None:
    try:
        return dead_in(model, known)
    except UnsupportedModelError as error:
        found["note"] = str(error)
        return None


def _nodes(known: Couplings, cut: Mapping[str, int]) -> FileNodes:
    return {
        "prunable": [
            {
                "name": coupling.name,
                "layers": list(
                    dict.fromkeys(layer_of(member.tensor) for member in coupling.members if member.role == "writes")
                ),
                "nodes": coupling.size,
                "cuttable": cut.get(coupling.name, 0),
            }
            for coupling in known.found
        ],
        "kept": [{"layer": layer, "reason": reason} for layer, reason in sorted(known.kept.items())],
    }


def _branches(known: ResidualBranches, zero: Iterable[Branch]) -> FileBranches:
    return {
        "prunable": [branch.name for branch in known.found],
        "zero": [branch.name for branch in zero],
        "kept": [{"layer": layer, "reason": reason} for layer, reason in sorted(known.kept.items())],
    }


def _per_layer(macs: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in macs.items():
        if count:
            found[layer_of(name)] = found.get(layer_of(name), 0) + count
    return found


def _runnable(program: torch.export.ExportedProgram) -> Network | None:
    """The program as a network; None where it takes anything but one tensor."""
    match program.example_inputs:
        case ((Tensor() as example,), named) if example.ndim and not named:
            return runnable(program), example
    return None


# --- ONNX ---

_SILENT = ("LSTM", "GRU", "RNN", "Einsum", "Attention", "MultiHeadAttention")
"""Operators that multiply matrices and are not counted here; integer matrix products are others."""


_INT8 = (
    "it is quantized, and not equal to the float file that it was made of; prune the network, not this file, and "
    "quantize the result"
)


def _text(found: str | bytes) -> str:
    """Text, which protobuf gives as bytes where it is not UTF-8."""
    return found.decode(errors="backslashreplace") if isinstance(found, bytes) else found


def _onnx(path: Path) -> FileContents:
    graph = read_onnx(path)
    described = _described(_initializers(graph, path))
    metadata = {_text(key): _text(value) for key, value in graph.metadata_props.items()}
    known = Known(found={"inputs": inputs_of(graph)}, per_layer={})
    try:
        total, known["per_layer"] = _onnx_macs(graph)
        if total is not None:
            known["found"]["macs"] = total
        if any(quantizes(node.op_type) for node in graph.graph.all_nodes()):
            known["found"]["note"] = _INT8
    except Exception as error:  # an untrusted graph may be anything
        known["found"]["note"] = f"its multiply-adds do not follow from its graph: {reason(error)}"
    return _found(path, described, metadata, known)


def _initializers(graph: "onnx_ir.Model", path: Path) -> Iterator[tuple[str, Tensor]]:
    """Tensors one after the other, so that the writable copies are never in memory together."""
    for name, value in graph.graph.initializers.items():
        if value.const_value is not None:
            try:
                yield name, torch.from_numpy(value.const_value.numpy().copy())
            except Exception as error:  # data beside the file that are missing, or a type that torch lacks
                raise InputError(f"{path}: the tensor {name} cannot be read: {reason(error)}") from error


def _onnx_macs(graph: "onnx_ir.Model") -> tuple[int | None, dict[str, int]]:
    """(multiply-adds for one sample, those by layer); None where they do not all follow from the graph's shapes."""
    _infer_shapes_of_one(graph)
    total: int | None = 0
    found: dict[str, int] = {}
    for node in graph.graph.all_nodes():
        kind = node.op_type
        if (
            kind in _SILENT
            or kind.endswith("Integer")
            or kind.startswith("QLinear")
            or node.domain not in ("", "ai.onnx")
        ):
            total = None
        elif kind in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
            macs = _macs_of(node)
            total = None if total is None or macs is None else total + macs
            names = [value.name for value in node.inputs if value is not None and value.is_initializer()]
            if macs is not None and names:
                found[str(names[0])] = found.get(str(names[0]), 0) + macs
    return total, _per_layer(found)


def _infer_shapes_of_one(graph: "onnx_ir.Model") -> None:
    """Note the shapes between the layers for a batch of one."""
    import onnx_ir
    from onnx_ir.passes.common import ShapeInferencePass

    for value in graph.graph.inputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = onnx_ir.Shape([1, *value.shape[1:]])
    for node in graph.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    with quiet():
        ShapeInferencePass()(graph)


def _macs_of(node: "onnx_ir.Node") -> int | None:
    first, second, result = (_sizes(value) for value in (node.inputs[0], node.inputs[1], node.outputs[0]))
    if first is None or second is None or result is None:
        return None
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transA", False)
    return math.prod(result) * first[0 if transposed else -1]


def _sizes(value: "onnx_ir.Value | None") -> tuple[int, ...] | None:
    if value is None or value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(int(size) for size in value.shape)  # type: ignore[arg-type]
