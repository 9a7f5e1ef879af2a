"""Rounds weights to 8 bits for a file: an integer for each entry, and a scale for each row.

A file with rounded weights is a `.safetensors` file. Of a rounded tensor it has two entries: NAME, int8 of its shape,
and NAME:scales, float32, one for each index of its first dimension. An entry of the tensor is its integer times the
scale of its row. The metadata `softprune.int8` is JSON, {"version": 1, "tensors": {NAME: type}}, with the type of the
tensor. Zeros remain zeros, so that `compress.files.packing` can pack the integers.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from compress.errors import CheckpointError
from compress.files.noted import noted, read_noted

KEY = "softprune.int8"
"""Of the metadata that says what is rounded."""

_VERSION = 1
_SCALES = ":scales"
_LARGEST = 127

_ENTRY = 150
"""Bytes of the header that a rounded tensor takes beside another one."""

_TYPES = {str(one).removeprefix("torch."): one for one in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}


def rounded(tensors: Mapping[str, Tensor], names: Collection[str]) -> tuple[dict[str, Tensor], str]:
    """The entries of a file in which the tensors `names` are rounded, and its metadata under `KEY`.

    Left alone are tensors of one dimension, those with NaN, infinities or what float32 cannot hold, and those that
    would not be smaller.

    Args:
        tensors: on the CPU.
    """
    found, described = dict(tensors), {}
    for name in names:
        tensor = tensors[name]
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind in _TYPES and name + _SCALES not in tensors and _is_worth_it(tensor):
            found[name], found[name + _SCALES] = _integers(tensor)
            described[name] = kind
    return found, noted(_VERSION, described)


def restored(entries: Mapping[str, Tensor], text: str, most: int, damaged: str) -> dict[str, Tensor]:
    """The tensors of a file with rounded weights.

    Args:
        text: its metadata under `KEY`.
        most: bytes that they may take.
        damaged: the beginning of the error text.

    Raises:
        CheckpointError: the entries and the metadata contradict each other, are of a later version, or take more.
    """
    found = dict(entries)
    described = read_noted(text, KEY, _VERSION, _is_entry, damaged)
    kinds = {name: _TYPES[word] for name, word in described.items()}
    claimed = sum(found[name].numel() * kind.itemsize for name, kind in kinds.items() if name in found)
    if claimed > most:
        raise CheckpointError(f"{damaged}: its rounded weights claim {claimed:,} bytes")
    for name, kind in kinds.items():
        integers, scales = found.get(name), found.pop(name + _SCALES, None)
        if integers is None or scales is None or integers.dtype != torch.int8 or scales.dtype != torch.float32:
            raise CheckpointError(f"{damaged}: {name!r} lacks its integers or their scales")
        if integers.dim() < 2 or scales.shape != integers.shape[:1]:
            raise CheckpointError(f"{damaged}: {name!r} does not have a scale for each row")
        found[name] = (integers * _for_rows(scales, integers)).to(kind)
    return found


def _is_worth_it(tensor: Tensor) -> bool:
    if tensor.dim() < 2 or tensor.numel() + 4 * len(tensor) + _ENTRY >= tensor.nbytes:
        return False
    return float(tensor.abs().max()) < torch.finfo(torch.float32).max  # not so of a NaN


def _integers(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 of the tensor's shape, the scale of each row)"""
    wide = tensor.detach().double()
    scales = (wide.flatten(1).abs().amax(1) / _LARGEST).float()
    scales = torch.where(scales > 0, scales, 1.0)  # of a row of zeros, or of next to nothing
    integers = (wide / _for_rows(scales, tensor)).round().clamp(-_LARGEST, _LARGEST)
    return integers.to(torch.int8).contiguous(), scales


def _for_rows(scales: Tensor, tensor: Tensor) -> Tensor:
    return scales.view(-1, *(1 for _ in tensor.shape[1:]))


def _is_entry(found: object) -> bool:
    return isinstance(found, str) and found in _TYPES
