"""Packs tensors with many zeros: the nonzero values, and their places in one of two codes, whichever is smaller.

A packed file is a `.safetensors` file. Of a packed tensor it has two entries: NAME, the nonzero values in order, and
NAME:places, bytes. The metadata `softprune.sparse` is JSON, {"version": 1, "tensors": {NAME: [code, shape]}}. All other
tensors are as they would be without packing. The codes:

- "bitmask": a bit for each entry, the lowest bit of a byte first, 1 where the entry is nonzero.
- "gaps": for each nonzero entry, the number of zeros before it since the last one, and at the end the number of zeros
  after the last one. A number is a byte below 255, after a byte of 255 for each 255 zeros.

Nonzero means bits other than 0: -0.0 and NaN are values.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import CheckpointError
from compress.files.noted import noted, read_noted

KEY = "softprune.sparse"
"""Of the metadata that says what is packed."""

_VERSION = 1
_PLACES = ":places"

_ENTRY = 200
"""Bytes of the header that a packed tensor takes beside a dense one."""

_ROOM, _TIMES = 2**30, 128
"""A file may unpack to a gigabyte and this many times its size: a bitmask of float64 is at most 64 times smaller."""

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Bytes = NDArray[np.uint8]


def packed(tensors: Mapping[str, Tensor], size: int | None = None) -> tuple[dict[str, Tensor], str]:
    """The entries of a packed file, and its metadata under `KEY`.

    Args:
        tensors: contiguous ones on the CPU.
        size: bytes that a reader makes of them, if more than they have.
    """
    found, described = _packed(tensors, ("bitmask", "gaps"))
    # Of nearly nothing but zeros: what no reader could tell from an attack.
    if (size or size_of(tensors)) > most(size_of(found)):
        found, described = _packed(tensors, ("bitmask",))
    return found, noted(_VERSION, described)


def unpacked(entries: Mapping[str, Tensor], text: str, size: int, damaged: str) -> dict[str, Tensor]:
    """The tensors of a packed file, to the last bit.

    Args:
        text: its metadata under `KEY`. size: bytes of the file.
        damaged: the beginning of the error text.

    Raises:
        CheckpointError: the entries and the metadata contradict each other, are of a later version, or claim far more
            memory than the file has.
    """
    described = read_noted(text, KEY, _VERSION, _is_entry, damaged)
    left = dict(entries)
    claimed = size_of(entries)
    found: dict[str, Tensor] = {}
    for name, (code, shape) in described.items():
        values, places = left.pop(name, None), left.pop(name + _PLACES, None)
        if values is None or places is None or values.dim() != 1 or places.dim() != 1 or places.dtype != torch.uint8:
            raise CheckpointError(f"{damaged}: {name!r} lacks its values or their places")
        claimed += math.prod(shape) * values.itemsize
        if claimed > most(size):
            raise CheckpointError(f"{damaged}: it has {size:,} bytes, and its tensors claim {claimed:,} and more")
        try:
            found[name] = _filled(values, _nonzero(code, places.numpy(), math.prod(shape)), shape)
        except ValueError as error:
            raise CheckpointError(f"{damaged}: the places of {name!r} {error}") from None
    return {**found, **left}


def most(size: int) -> int:
    """Bytes that the tensors of a file of `size` bytes may take."""
    return _ROOM + _TIMES * size


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.nbytes for tensor in tensors.values())


# --- packing ---


def _packed(tensors: Mapping[str, Tensor], codes: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    found: dict[str, Tensor] = {}
    described: dict[str, Any] = {}
    for name, tensor in tensors.items():
        packing = _smallest(tensor, codes) if name + _PLACES not in tensors else None
        if packing is None:
            found[name] = tensor
        else:
            code, values, places = packing
            found[name], found[name + _PLACES] = values, torch.from_numpy(places)
            described[name] = [code, list(tensor.shape)]
    return found, described


def _smallest(tensor: Tensor, codes: tuple[str, ...]) -> tuple[str, Tensor, Bytes] | None:
    """(code, values, places) of a tensor; None where it is smaller as it is."""
    if tensor.itemsize not in _BITS:
        return None
    bits = tensor.reshape(-1).view(_BITS[tensor.itemsize])
    nonzero = (bits != 0).numpy()
    count = int(np.count_nonzero(nonzero))
    least = count * tensor.itemsize + _ENTRY + min(count, nonzero.size // 8)
    if least >= tensor.nbytes:
        return None
    places = {code: _CODES[code](nonzero) for code in codes}
    code = min(places, key=lambda code: places[code].size)
    if count * tensor.itemsize + places[code].size + _ENTRY >= tensor.nbytes:
        return None
    return code, bits[torch.from_numpy(nonzero)].view(tensor.dtype), places[code]


def _bitmask(nonzero: NDArray[np.bool_]) -> Bytes:
    return np.packbits(nonzero, bitorder="little")


def _gaps(nonzero: NDArray[np.bool_]) -> Bytes:
    ends = np.append(np.flatnonzero(nonzero), nonzero.size)
    zeros = np.diff(ends, prepend=-1) - 1
    skips = zeros // 255
    places = np.full(int(skips.sum()) + zeros.size, 255, dtype=np.uint8)
    places[np.cumsum(skips + 1) - 1] = zeros % 255
    return places


_CODES = {"bitmask": _bitmask, "gaps": _gaps}


# --- unpacking ---


def _is_entry(found: object) -> bool:
    return isinstance(found, list) and len(found) == 2 and found[0] in _CODES and _is_shape(found[1])


def _is_shape(found: object) -> bool:
    return isinstance(found, list) and len(found) <= 64 and all(type(size) is int and size >= 0 for size in found)


def _nonzero(code: str, places: Bytes, count: int) -> NDArray[np.int64]:
    """The places of the nonzero values among `count` entries. Raises ValueError, with what is wrong."""
    if code == "bitmask":
        if places.size != -(-count // 8) or np.any(
            np.unpackbits(places[-1:], bitorder="little")[(count - 1) % 8 + 1 :]
        ):
            raise ValueError("do not have a bit for each entry")
        return np.flatnonzero(np.unpackbits(places, count=count, bitorder="little"))
    ends = np.cumsum(places + (places < 255), dtype=np.int64)
    if not places.size or places[-1] == 255 or ends[-1] != count + 1:
        raise ValueError("do not end where the tensor does")
    return ends[places < 255][:-1] - 1


def _filled(values: Tensor, places: NDArray[np.int64], shape: list[int]) -> Tensor:
    if len(values) != len(places):
        raise ValueError(f"are {len(places):,}, and its values {len(values):,}")
    if values.itemsize not in _BITS:
        raise ValueError(f"are of numbers that are never packed ({values.dtype})")
    kind = _BITS[values.itemsize]
    bits = torch.zeros(math.prod(shape), dtype=kind)
    bits[torch.from_numpy(places)] = values.view(kind)
    return bits.view(values.dtype).view(shape)
