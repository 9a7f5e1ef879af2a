"""`.onnx`: one file with a dynamic batch size, that onnxruntime and others run without torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compress.errors import InputError, ProofError, UnsupportedModelError
from compress.export.latency import open_session
from compress.export.onnx_reading import let_go, read_onnx
from compress.export.program_file import quiet, require_arguments, trace
from compress.export.weights_file import require_metadata
from compress.files.atomic import atomic, require_path
from compress.inputs import Inputs
from compress.proof import prove_file

if TYPE_CHECKING:
    import onnx_ir

_SMALL = 1 << 16
"""Bytes of a tensor that is not a weight of the network, such as the sizes of a view."""


def onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Tensor,
    *,
    metadata: Mapping[str, str] | None = None,
    tolerance: float = 1e-5,
    program: ExportedProgram | None = None,
) -> float:
    """Write the model, weights included, with the input `input` and the output `output`.

    Args:
        example: one input, shape [batch, ...]; only its shape and type matter.
        metadata: text by key for the file's `metadata_props`.
        tolerance: of the outputs, relative to their largest magnitude.
        program: `trace(model, example)`, where the caller has it already.

    Returns:
        The largest difference between onnxruntime and torch.

    Raises:
        InputError: the model has pruning hooks or is not on the CPU.
        UnsupportedModelError: the model cannot be traced, converted to ONNX, or run by onnxruntime.
        ProofError: onnxruntime computes something else; the file is not kept.
        OutputError: the file cannot be written.
    """
    require_arguments(model, path, example, tolerance, program)
    require_metadata(metadata)
    graph = _convert(model, program or trace(model, example))
    return _write(graph, model, Path(path), example, metadata or {}, tolerance)


def with_weights(
    source: str | os.PathLike[str],
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Tensor,
    *,
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
    require_arguments(model, path, example, tolerance)
    require_metadata(metadata)
    require_path("source", source)
    graph = read_onnx(source)
    try:
        _replace_weights(graph, model)
        return _write(graph, model, Path(path), example, metadata or {}, tolerance)
    except (KeyError, UnsupportedModelError, ProofError):
        return onnx(model, path, example, metadata=metadata, tolerance=tolerance)


def _replace_weights(graph: "onnx_ir.Model", model: nn.Module) -> None:
    """Raises KeyError where the graph lacks a floating-point tensor of the state_dict."""
    import onnx_ir
    from onnx_ir.tensor_adapters import TorchTensor  # no copy, as onnx_ir.tensor would make

    for name, value in graph.graph.initializers.items():  # each of the file's own would hold all of it in memory
        if value.const_value is not None and value.const_value.nbytes < _SMALL:
            value.const_value = onnx_ir.Tensor(value.const_value.numpy().copy(), name=name)
    resized = False
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            initializer = graph.graph.initializers[name]
            shape = onnx_ir.Shape(tensor.shape)
            resized = resized or initializer.shape != shape
            initializer.shape, initializer.const_value = shape, TorchTensor(tensor.detach(), name=name)
    if resized:  # then the shapes noted between the layers are wrong; readers infer them where they are absent
        for node in graph.graph.all_nodes():
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None


def _convert(model: nn.Module, program: ExportedProgram) -> "onnx_ir.Model":
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    try:
        with quiet():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                external_data=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: "batch"},),  # traced already: this only names the dimension
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise UnsupportedModelError(f"{type(model).__name__} cannot be converted to ONNX: {reason}") from error
    assert converted is not None
    ClearMetadataAndDocStringPass()(converted.model)  # stack traces, with the paths of this machine
    return converted.model


def _write(
    graph: "onnx_ir.Model",
    model: nn.Module,
    path: Path,
    example: Tensor,
    metadata: Mapping[str, str],
    tolerance: float,
) -> float:
    import onnx_ir
    from onnx import checker, shape_inference

    graph.metadata_props.clear()
    graph.metadata_props.update(metadata)
    with atomic(path) as temporary:
        onnx_ir.save(graph, temporary)
        let_go(graph)
        try:
            checker.check_model(str(temporary), full_check=True)
            session = open_session(temporary)
        except (checker.ValidationError, shape_inference.InferenceError, InputError) as error:
            reason = str(error).replace(str(temporary), str(path))
            raise UnsupportedModelError(f"{type(model).__name__} as ONNX does not run: {reason}") from error

        def run(inputs: Inputs) -> Tensor:
            return torch.from_numpy(session.run(["output"], {"input": inputs.tensors[0].numpy()})[0])

        return prove_file(model, run, example, tolerance, f"onnxruntime with {path}").difference
