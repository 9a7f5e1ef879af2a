"""`.onnx`: one file with a dynamic batch size, that onnxruntime and others run without torch."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.export import ExportedProgram

from compress.dynamic import Dynamic
from compress.errors import InputError, ProofError, UnsupportedModelError
from compress.export.interface import Interface, interface, output_names
from compress.export.latency import open_session
from compress.export.onnx_reading import read_onnx
from compress.export.onnx_writing import SMALL, check_onnx, large_tensors, write_onnx
from compress.export.program_file import largest, prove_sizes, quiet, require_arguments, trace
from compress.export.weights_file import require_metadata
from compress.files.atomic import atomic, require_path
from compress.files.foreign import reason
from compress.graph.network import uncompiled
from compress.inputs import Inputs
from compress.options import check
from compress.results import OPSETS
from compress.slimming.bottleneck import AXES, READER

if TYPE_CHECKING:
    import onnx_ir


def onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: object,
    *,
    dynamic: Dynamic | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float = 1e-5,
    opset: int | None = None,
    program: ExportedProgram | None = None,
) -> float:
    """Write the model, weights included, with a named input and a named output for each tensor.

    A single tensor is the input `input`; several are named as the arguments of the model's `forward`. A single tensor
    that is returned is the output `output`; others are named by their keys, such as `logits` and `hidden_states_0`.

    Args:
        example: whatever the network is called with (see `compress.Inputs`). Of tensors, only shape and type matter;
            plain values become part of the file.
        dynamic: names of dimensions that vary beside the batch, by input and dimension, such as
            {"input_ids": {1: "length"}}; the file is proven at several of their sizes.
        metadata: text by key for the file's `metadata_props`.
        tolerance: of each output, relative to how much it varies over the inputs.
        opset: the version of ONNX's operators, 18 to 25; by default the one that torch's exporter chooses.
        program: `trace(model, example)`, where the caller has it already.

    Returns:
        The largest difference between onnxruntime and torch.

    Raises:
        InputError: the model has pruning hooks, is not on the CPU, does not run on `example`, or lacks what `dynamic`
            names.
        UnsupportedModelError: the model cannot be traced, converted to ONNX, or run by onnxruntime.
        ProofError: onnxruntime computes something else; the file is not kept.
        OutputError: the file cannot be written.
    """
    require_path("path", path)
    require_metadata(metadata)
    conversion = converted(model, example, dynamic=dynamic, tolerance=tolerance, opset=opset, program=program)
    return conversion.write(path, metadata)


@dataclass(frozen=True)
class Conversion:
    """A network as an ONNX graph, before it is a file."""

    model: nn.Module
    graph: "onnx_ir.Model"
    called: Interface
    most: Mapping[str, int]
    tolerance: float

    @property
    def opset(self) -> int:
        """The version of ONNX's operators."""
        return int(self.graph.opset_imports[""])

    def write(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> float:
        """Write the file, once, and prove it; as `onnx` does."""
        return _write(self.graph, self.model, Path(path), self.called, self.most, metadata or {}, self.tolerance)


def converted(
    model: nn.Module,
    example: object,
    *,
    dynamic: Dynamic | None = None,
    tolerance: float = 1e-5,
    opset: int | None = None,
    program: ExportedProgram | None = None,
) -> Conversion:
    """The first half of `onnx`, for callers that need the opset before writing.

    Raises:
        InputError, UnsupportedModelError: as `onnx`.
    """
    model = uncompiled(model)
    require_arguments(model, example, tolerance, program)
    if opset is not None:
        check("opset", opset, int, ge=OPSETS[0], le=OPSETS[1])
    called = interface(model, example, dynamic)
    program = program or trace(model, example, dynamic=dynamic)
    graph = _convert(model, program, called, opset)
    return Conversion(model, graph, called, largest(called, program), tolerance)


def with_weights(
    source: str | os.PathLike[str],
    model: nn.Module,
    path: str | os.PathLike[str],
    example: object,
    *,
    dynamic: Dynamic | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float = 1e-5,
) -> float:
    """Do what `onnx` does, ten times as fast, for a model whose graph is already in another file.

    Dense, masked and slim networks often differ in nothing but their weights, so the graph of `source` gets those of
    `model`. Where that does not give the outputs of `model` (the graph names a width, or lacks a tensor because the
    converter has merged a BatchNorm into its Conv, or left out a bias of zeros), the model is converted like any other.

    Args:
        source: an ONNX file that `onnx` has written, of the same network with other weights or widths.

    Raises:
        InputError: `source` is not an ONNX file; else as `onnx`.
    """
    model = uncompiled(model)
    require_path("path", path)
    require_arguments(model, example, tolerance)
    require_metadata(metadata)
    require_path("source", source)
    return reweighted(read_onnx(source), model, path, example, dynamic=dynamic, metadata=metadata, tolerance=tolerance)


def reweighted(
    graph: "onnx_ir.Model",
    model: nn.Module,
    path: str | os.PathLike[str],
    example: object,
    *,
    dynamic: Dynamic | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float = 1e-5,
) -> float:
    """`with_weights`, from a graph in memory, such as that of a `Conversion` that has been written.

    Args:
        model: one that is not compiled. graph: it gets these weights, and is without its large ones afterwards.
    """
    called = interface(model, example, dynamic)
    try:
        _replace_weights(graph, model)
        return _write(graph, model, Path(path), called, called.sizes, metadata or {}, tolerance)
    except (KeyError, UnsupportedModelError, ProofError):
        found = graph.opset_imports.get("", 0)
        opset = found if OPSETS[0] <= found <= OPSETS[1] else None
        return onnx(model, path, example, dynamic=dynamic, metadata=metadata, tolerance=tolerance, opset=opset)


def _replace_weights(graph: "onnx_ir.Model", model: nn.Module) -> None:
    """Raises KeyError where the graph lacks a floating-point tensor of the state_dict, or the values of another."""
    import onnx_ir
    from onnx_ir.tensor_adapters import TorchTensor  # no copy, as onnx_ir.tensor would make

    for name, value in graph.graph.initializers.items():  # each of the file's own would hold all of it in memory
        if value.const_value is not None and value.const_value.nbytes < SMALL:
            value.const_value = onnx_ir.Tensor(value.const_value.numpy().copy(), name=name)
    _join_bottlenecks(graph.graph, model.state_dict())
    resized = False
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            initializer = graph.graph.initializers[name]
            shape = onnx_ir.Shape(tensor.shape)
            resized = resized or initializer.shape != shape
            initializer.shape, initializer.const_value = shape, TorchTensor(tensor.detach(), name=name)
    if any(value.const_value is None for value in graph.graph.initializers.values()):
        raise KeyError("a large tensor that is computed from the weights, or is no number")
    if resized:  # then the shapes noted between the layers are wrong; readers infer them where they are absent
        for node in graph.graph.all_nodes():
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None


def _join_bottlenecks(graph: "onnx_ir.Graph", wanted: Collection[str]) -> None:
    """Make one layer again of each Linear that was taken apart into axes and their reader, if `wanted` names it so.

    Raises:
        KeyError: the graph computes such a layer in another way than as one Gemm, or has no bias of it.
    """
    tensors = graph.initializers
    for layer in [name.removesuffix(f".{AXES}.weight") for name in tensors if name.endswith(f".{AXES}.weight")]:
        if f"{layer}.weight" not in wanted:
            continue
        for node in tensors[f"{layer}.{AXES}.weight"].consumers():
            read = node.inputs[0]
            if read is None or node.op_type != "Gemm" or f"{layer}.bias" not in wanted:
                raise KeyError(layer)
            node.outputs[0].replace_all_uses_with(read)
            graph.remove(node, safe=True)
        for kind in ("weight", "bias"):
            del tensors[f"{layer}.{AXES}.{kind}"]
            tensors[f"{layer}.{READER}.{kind}"].name = f"{layer}.{kind}"


def _convert(model: nn.Module, program: ExportedProgram, called: Interface, opset: int | None) -> "onnx_ir.Model":
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    try:
        with quiet():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                external_data=False,
                input_names=called.names,
                dynamic_shapes=dict(zip(called.names, called.varying, strict=True)),  # traced already: this only names
                verbose=False,
                opset_version=opset,
            )
    except torch.onnx.OnnxExporterError as error:
        said = reason(error.__cause__ or error)
        raise UnsupportedModelError(f"{type(model).__name__} cannot be converted to ONNX: {said}") from error
    assert converted is not None
    graph = converted.model
    _require_opset(model, graph, opset)
    names = output_names(program, [*called.names, *graph.graph.initializers, *model.state_dict()])
    for output, name in zip(graph.graph.outputs, names, strict=True):
        output.name = name
    ClearMetadataAndDocStringPass()(graph)  # stack traces, with the paths of this machine
    return graph


def _require_opset(model: nn.Module, graph: "onnx_ir.Model", opset: int | None) -> None:
    """Refuse another opset than was asked for: the exporter gives one, without an error, where it cannot convert."""
    found = graph.opset_imports.get("")
    if opset is not None and found != opset:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be converted to opset {opset}: the exporter gives {found}; ask for that one"
        )


def _write(
    graph: "onnx_ir.Model",
    model: nn.Module,
    path: Path,
    called: Interface,
    most: Mapping[str, int],
    metadata: Mapping[str, str],
    tolerance: float,
) -> float:
    from onnx import checker, shape_inference

    graph.metadata_props.clear()
    graph.metadata_props.update(metadata)
    with atomic(path) as temporary:
        try:
            check_onnx(graph)
            write_onnx(graph, temporary)
            for name in large_tensors(graph):  # the garbage collector may run late; torch's converter keeps its graphs
                graph.graph.initializers[name].const_value = None
            session = open_session(temporary)
        except (checker.ValidationError, shape_inference.InferenceError, InputError) as error:
            said = str(error).replace(str(temporary), str(path))
            raise UnsupportedModelError(_refusal(model, said)) from error

        def run(given: Inputs) -> object:
            found = session.run(None, {name: tensor.numpy() for name, tensor in called.named(given).items()})
            return [torch.from_numpy(array) for array in found]

        return prove_sizes(model, run, called, most, tolerance, f"onnxruntime with {path}")


def _refusal(model: nn.Module, said: str) -> str:
    """What onnxruntime or the checker said of a model's file, and the way out."""
    kind, lacking = type(model).__name__, re.search(r"Could not find an implementation for (\w+)\(", said)
    types = {str(tensor.dtype).removeprefix("torch.") for tensor in model.parameters() if tensor.is_floating_point()}
    if lacking and types - {"float32"}:
        return f"{kind}: onnxruntime has no {lacking[1]} for {' and '.join(sorted(types))} here: export model.float()"
    return f"{kind} as ONNX does not run: {said}"
