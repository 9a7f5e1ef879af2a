"""What a file holds: tensors with shape, type and zeros, and the text that was noted in it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.checkpoint import read_weights
from compress.errors import InputError
from compress.export.onnx_reading import read_onnx
from compress.export.program_reading import program_weights

_WEIGHTS = (".pt", ".pth", ".safetensors")


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a file of weights, a program or an ONNX model.

    Returns:
        {"file", "format", "bytes", "entries", "zeros", "tensors": [{"name", "shape", "dtype", "entries", "zeros"}],
        "metadata": {key: text}}; masks of a model that is being pruned count as folded.

    Raises:
        InputError: there is no such file, it is damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.exists() else 'no file'}: name a file to look into")
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    if path.suffix in _WEIGHTS:
        weights = read_weights(path)
        tensors, metadata = weights.tensors, weights.metadata
    elif path.suffix == ".onnx":
        tensors, metadata = _read_onnx(path)
    elif path.suffix == ".pt2":
        tensors, metadata = program_weights(path), {}
    else:
        raise InputError(f"{path} ends in {path.suffix!r}: known are {', '.join(_WEIGHTS)}, .onnx and .pt2")
    described = [_describe(name, tensor) for name, tensor in tensors.items()]
    return {
        "file": str(path),
        "format": path.suffix[1:],
        "bytes": path.stat().st_size,
        "entries": sum(tensor["entries"] for tensor in described),
        "zeros": sum(tensor["zeros"] for tensor in described),
        "tensors": described,
        "metadata": dict(metadata),
    }


def _describe(name: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "entries": tensor.numel(),
        "zeros": tensor.numel() - int(_countable(tensor).count_nonzero()),
    }


def _countable(tensor: Tensor) -> Tensor:
    """torch does not count in its rarer types, all of which fit into these."""
    if tensor.is_floating_point():
        return tensor.float() if tensor.itemsize == 1 else tensor
    return tensor != 0 if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64) else tensor


def _read_onnx(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    model = read_onnx(path)
    try:
        tensors = {
            name: torch.from_numpy(value.const_value.numpy().copy())
            for name, value in model.graph.initializers.items()
            if value.const_value is not None
        }
        metadata = {_text(key): _text(value) for key, value in model.metadata_props.items()}
    except Exception as error:  # numpy's errors have no common base
        raise InputError(f"{path} cannot be read as an ONNX model: {error}") from error
    return tensors, metadata


def _text(found: str | bytes) -> str:
    """protobuf gives what is no UTF-8 as bytes."""
    return found.decode(errors="backslashreplace") if isinstance(found, bytes) else found
