"""A float ONNX file, checked and made ready for int8: of an opset with its kernels, optimised, every node named."""

import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import InputError, UnsupportedModelError
from compress.export.latency import open_session, require_file
from compress.export.onnx_reading import let_go, quantizes, read_onnx
from compress.export.program_file import quiet
from compress.files.foreign import reading
from compress.wording import did_you_mean

if TYPE_CHECKING:
    import onnx

OPSET = 13
"""The first one whose QuantizeLinear has a scale for each channel."""

STATIC = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose weights become int8 with fixed ranges of activations."""

DYNAMIC = ("Gather", "Gemm", "LSTM", "MatMul")
"""Those with ranges measured at each call. onnxruntime's ConvInteger is many times slower than its Conv of floats."""

_LARGEST = 2**31 - 1
"""Bytes of a protobuf message."""


@dataclass(frozen=True)
class Prepared:
    """source: the file as it was, in one piece and with names for the dimensions that vary. path: ready for int8.

    nodes: (name, operator, whether its weights are floats that int8 replaces) of the latter.
    excluded: names of the nodes that remain float.
    inputs: onnxruntime's description of the inputs.
    metadata: text by key, of the source.
    """

    source: Path
    path: Path
    nodes: Sequence[tuple[str, str, bool]]
    excluded: Sequence[str]
    inputs: list[Any]
    metadata: dict[str, str]

    def quantizable(self, operators: Iterable[str]) -> list[str]:
        """The names of the nodes that int8 of these operators would change."""
        left = [node for node in self.nodes if node[0] not in self.excluded]
        return [name for name, kind, weighty in left if weighty and kind in operators]


def prepare(path: Path, exclude: Sequence[str], scratch: Path) -> Prepared:
    """Read `path`, and write the files of `Prepared` into the folder `scratch`.

    Raises:
        InputError: there is no such file, it is damaged, quantized already or too large, or a pattern of `exclude`
            matches nothing.
        UnsupportedModelError: nothing in it can be quantized, or its opset is too old and cannot be raised.
    """
    import onnx

    require_file(path)
    let_go(read_onnx(path))
    with reading(InputError, f"{path} cannot be read as an ONNX model"):
        model = onnx.load(path)
    _require_float(model, path)
    _name_dimensions(model)
    if model.ByteSize() > _LARGEST:
        raise InputError(f"{path} has {model.ByteSize():,} bytes with its data; int8 is for models up to {_LARGEST:,}")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    source, ready = scratch / "float.onnx", scratch / "ready.onnx"
    onnx.save(model, source)
    open_session(source)  # raises where onnxruntime cannot run it
    names = {node.name: node for node in model.graph.node}
    _pre_process(_raised(model, path), ready, scratch, path)
    prepared = onnx.load(ready)
    _name_nodes(prepared)
    onnx.save(prepared, ready)
    nodes = [(node.name, node.op_type, _is_weighty(node, prepared)) for node in prepared.graph.node]
    excluded = _excluded(prepared, list(names.values()), exclude, path)
    found = Prepared(source, ready, nodes, excluded, open_session(ready).get_inputs(), metadata)
    if not found.quantizable({*STATIC, *DYNAMIC}):
        _refuse(found, path, exclude)
    return found


def _require_float(model: "onnx.ModelProto", path: Path) -> None:
    for node in model.graph.node:
        if quantizes(node.op_type):
            raise InputError(f"{path} is quantized already ({node.op_type}); give the float file that it was made of")


def _name_dimensions(model: "onnx.ModelProto") -> None:
    """A name for each dimension of an input that has neither a size nor a name."""
    for value in model.graph.input:
        for place, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value") and not size.dim_param:
                size.dim_param = f"{value.name}_{place}" if place else "batch"


def _raised(model: "onnx.ModelProto", path: Path) -> "onnx.ModelProto":
    """The model in an opset with int8, which newer ones are."""
    from onnx import version_converter

    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), OPSET)
    if version >= OPSET:
        return model
    what = f"{path} has opset {version}, and onnx cannot raise it to {OPSET}, which int8 needs; export it again in that"
    with reading(UnsupportedModelError, what), quiet():
        return version_converter.convert_version(model, OPSET)


def _pre_process(model: "onnx.ModelProto", ready: Path, scratch: Path, path: Path) -> None:
    """Shapes of all tensors, folded constants and norms; onnxruntime's own steps before int8."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    raised = scratch / "raised.onnx"
    onnx.save(model, raised)
    try:
        with quiet(), chdir(scratch):  # where it fails, it leaves a file in the current folder
            quant_pre_process(raised, ready)
    except Exception:  # its symbolic shapes do not know every operator, and onnx's are enough for most
        with reading(UnsupportedModelError, f"{path}: onnxruntime cannot prepare it for int8"), quiet():
            quant_pre_process(raised, ready, skip_symbolic_shape=True)


def _name_nodes(model: "onnx.ModelProto") -> None:
    taken = Counter(node.name for node in model.graph.node)
    for number, node in enumerate(model.graph.node):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.name or node.op_type}_{number}"


def _is_weighty(node: "onnx.NodeProto", model: "onnx.ModelProto") -> bool:
    from onnx import TensorProto

    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    place = 0 if node.op_type == "Gather" else 1
    return len(node.input) > place and node.input[place] in floats


def _excluded(
    prepared: "onnx.ModelProto", before: Sequence["onnx.NodeProto"], patterns: Sequence[str], path: Path
) -> list[str]:
    """The names of the prepared nodes that a pattern is of: itself, or a node of the file that it has come from."""
    known = {word for node in (*before, *prepared.graph.node) for word in (node.name, node.op_type) if word}
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(word, pattern) for word in known):
            hint = did_you_mean(pattern, known)
            raise InputError(f"{path}: exclude: no node or operator is called {pattern!r}{hint}")

    def matches(node: "onnx.NodeProto") -> bool:
        return any(fnmatch.fnmatchcase(word, pattern) for word in (node.name, node.op_type) for pattern in patterns)

    outputs = {output for node in before if matches(node) for output in node.output}
    return [node.name for node in prepared.graph.node if matches(node) or outputs & set(node.output)]


def _refuse(found: Prepared, path: Path, exclude: Sequence[str]) -> None:
    there = ", ".join(sorted({kind for _, kind, _ in found.nodes})) or "no node"
    weighty = any(weighty and kind in (*STATIC, *DYNAMIC) for _, kind, weighty in found.nodes)
    way_out = (
        f"exclude ({', '.join(exclude)}) leaves nothing"
        if weighty
        else (f"int8 is for {', '.join(sorted({*STATIC, *DYNAMIC}))} with weights in float32")
    )
    raise UnsupportedModelError(f"{path} has nothing to quantize: it has {there}; {way_out}")
