"""Files that run without this library: ONNX, safetensors and `.pt2`, each compared with its model before it is kept.

int8 is measured instead: it is not equal to its model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from compress.export.latency import measure
from compress.export.onnx_file import onnx, with_weights
from compress.export.program_file import pt2, read_program, trace
from compress.export.weights_file import safetensors, sparse

if TYPE_CHECKING:
    from compress.quantize.int8 import int8 as int8

__all__ = ["int8", "measure", "onnx", "pt2", "read_program", "safetensors", "sparse", "trace", "with_weights"]


def __getattr__(name: str) -> Any:
    if name == "int8":  # it is built on what is here
        return getattr(import_module("compress.quantize.int8"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
