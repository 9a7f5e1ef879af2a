"""Files that run without this library: ONNX, safetensors and `.pt2`, each compared with its model before it is kept."""

from compress.export.latency import measure
from compress.export.onnx_file import onnx, with_weights
from compress.export.program_file import pt2, read_program, trace
from compress.export.weights_file import safetensors, sparse

__all__ = ["measure", "onnx", "pt2", "read_program", "safetensors", "sparse", "trace", "with_weights"]
