"""What a file of weights may hold: plain arrays of numbers, in proportion to its size."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.errors import CheckpointError
from compress.files.bounded import MOST_TENSORS
from compress.wording import listed

_MOST_TIES = 16
"""Tensors may share their memory, as tied weights do, and be together this many times as large as their file."""

# torch has types that it stores and cannot compute with, such as int4 and bits8.
_TYPES = {
    *(torch.bool, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
}


def require_stored(path: Path, damaged: str) -> None:
    """Refuse a zip archive that could become larger than it is: torch writes its entries as they are, not compressed.

    Args:
        damaged: the error text where it is not such an archive.

    Raises:
        CheckpointError: the entries are larger than the file, or it is a damaged archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        raise CheckpointError(damaged) from error
    if unpacked > (size := path.stat().st_size):
        raise CheckpointError(
            f"{path} has {size:,} bytes and unpacks to {unpacked:,}, which nothing written by torch does: "
            "get the weights from a source that you trust"
        )


def require_plain_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are not arrays of numbers in memory, or claim more than they have.

    Raises:
        CheckpointError: sparse, quantized or empty-handed (meta) tensors, types that torch cannot compute with, tensors
            that repeat their memory until they are far larger than the file, or more tensors than anything needs.
    """
    strange = [
        f"{name} ({'quantized' if tensor.is_quantized else tensor.layout}, {tensor.dtype}, {tensor.device})"
        for name, tensor in tensors.items()
        if type(tensor) not in (Tensor, nn.Parameter)
        or tensor.is_quantized
        or tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.dtype not in _TYPES
    ]
    if strange:
        raise CheckpointError(
            f"{path} has tensors that are not plain arrays of numbers: {listed(strange)}; save dense ones, on the CPU"
        )
    if len(tensors) > MOST_TENSORS:
        raise CheckpointError(f"{path} has {len(tensors):,} tensors, and {MOST_TENSORS:,} are the most that are read")
    size = path.stat().st_size
    unpacked = sum(Tensor.numel(tensor) * tensor.itemsize for tensor in tensors.values())
    if unpacked > _MOST_TIES * size:
        raise CheckpointError(
            f"{path} has {size:,} bytes, and its tensors claim {unpacked:,}: they repeat the same memory; "
            "get the weights from a source that you trust"
        )
