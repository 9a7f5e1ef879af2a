"""Static and dynamic int8 of a prepared file, by onnxruntime.quantization."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.errors import UnsupportedModelError
from compress.export.onnx_network import Feed
from compress.export.program_file import quiet
from compress.files.foreign import reading
from compress.quantize.calibration import Samples
from compress.quantize.prepared import DYNAMIC, STATIC, Prepared
from compress.quantize.settings import Method

_BETWEEN = (
    *("Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Add", "Concat"),
    *("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
)
"""Operators that pass int8 on, so that it need not become float between two layers: a ResNet is a fifth faster."""

_CONVERTING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
"""What onnxruntime puts around operators; their names say nothing that their places do not."""

_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


def static(prepared: Prepared, out: Path, samples: Samples, method: Method, per_channel: bool) -> None:
    """Write int8 with fixed ranges of activations, as QDQ.

    Raises:
        UnsupportedModelError: no layer is left to quantize, or onnxruntime fails.
    """
    _require_any(prepared, STATIC, "static")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with _by_onnxruntime("static"):
        quantize_static(
            prepared.path,
            out,
            _Reader(samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*STATIC, *_BETWEEN],
            per_channel=per_channel,
            # Convolutions of signed activations are 2.7 times slower on x86.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(prepared.excluded),
            calibrate_method=CalibrationMethod[_METHODS[method]],
            extra_options={"CalibStridedMinMax": 1},  # of any method: a batch at a time, or else all are in memory
        )
    _tidy(prepared, out)


def dynamic(prepared: Prepared, out: Path, per_channel: bool) -> None:
    """Write int8 whose ranges of activations are measured at each call.

    Raises:
        UnsupportedModelError: no layer is left to quantize, or onnxruntime fails.
    """
    _require_any(prepared, DYNAMIC, "dynamic")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # A Gemm is split before names are compared.
    excluded = [name for node in prepared.excluded for name in (node, f"{node}_MatMul")]
    with _by_onnxruntime("dynamic"):
        quantize_dynamic(
            prepared.path,
            out,
            op_types_to_quantize=list(DYNAMIC),
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
        )
    _tidy(prepared, out)


def _require_any(prepared: Prepared, operators: tuple[str, ...], kind: str) -> None:
    if not prepared.quantizable(operators):
        raise UnsupportedModelError(f"no layer for {kind} int8, which is for {', '.join(operators)}")


@contextmanager
def _by_onnxruntime(kind: str) -> Iterator[None]:
    """Silent; whatever it raises is an error of this package."""
    with reading(UnsupportedModelError, f"onnxruntime cannot make {kind} int8 of it"), quiet():
        yield


def _tidy(prepared: Prepared, out: Path) -> None:
    """Give the file the source's metadata, and short names of tensors."""
    import onnx

    model = onnx.load(out)
    del model.metadata_props[:]  # notes of onnxruntime to itself
    onnx.helper.set_model_props(model, prepared.metadata)
    if not any(
        attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute
    ):
        _shorten(model.graph)
    onnx.save(model, out)


def _shorten(graph: Any) -> None:
    """Rename the tensors of a graph without graphs inside, and keep equal ones once (zero points): what onnxruntime
    makes is an eighth of the file of a ResNet-20. Layers keep their names, as do inputs and outputs.
    """
    del graph.value_info[:]  # onnxruntime infers shapes when it loads the file
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    found = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    inner = [name for name in dict.fromkeys(found) if name not in kept]
    free = (name for number in itertools.count() if (name := f"t{number:x}") not in kept)
    short = dict(zip(inner, free, strict=False))
    once: dict[bytes, str] = {}
    for tensor in [*graph.initializer]:
        if (old := tensor.name) in short:
            tensor.ClearField("name")
            first = once.setdefault(tensor.SerializeToString(deterministic=True), short[old])
            tensor.name = short[old]
            if first != short[old]:
                short[old] = first
                graph.initializer.remove(tensor)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]
        if node.op_type in _CONVERTING:
            node.ClearField("name")


class _Reader:
    """onnxruntime's CalibrationDataReader; it asks for one batch at a time, by its number, in order."""

    def __init__(self, samples: Samples) -> None:
        self._length, self._feeds, self._left = samples.batches, iter(samples), 0

    def __len__(self) -> int:
        return self._length

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = end_index - start_index

    def get_next(self) -> Feed | None:
        if not self._left:
            return None
        self._left -= 1
        return next(self._feeds, None)

    def __iter__(self) -> Any:
        return iter(self.get_next, None)
