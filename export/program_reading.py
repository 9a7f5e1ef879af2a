"""Reads the weights in a `.pt2` archive as data.

`torch.export.load` runs what a file says: it unpickles the sample inputs, whatever is marked as pickled and opaque
constants, hands expressions of sizes to sympy, which evaluates them as Python, and loads compiled libraries. So nothing
here calls it. The archive is a zip of raw tensors, with their names, types and shapes as JSON beside them.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.errors import CheckpointError
from compress.files.bounded import MOST_HEADER, MOST_TENSORS
from compress.files.foreign import reading
from compress.files.limits import require_plain_tensors, require_stored

# The numbers of the file format, torch/_export/serde/schema.py.
_INTEGERS = {1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 12: torch.bool}
_UNSIGNED = {28: torch.uint16, 34: torch.uint32, 35: torch.uint64}
_FLOATS = {6: torch.float16, 7: torch.float32, 8: torch.float64, 13: torch.bfloat16}
_COMPLEX = {10: torch.complex64, 11: torch.complex128}
_EIGHT_BITS = dict(
    enumerate(
        (
            *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
            torch.float8_e8m0fnu,
        ),
        start=29,
    )
)
_TYPES = {**_INTEGERS, **_UNSIGNED, **_FLOATS, **_COMPLEX, **_EIGHT_BITS}
_STRIDED = 7
_EXTRA = "/extra/"
_MODEL = "model"  # what torch.export.save calls it
_RESAVE = "write it again with torch.export.save, where you trust it"


def program_weights(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of the program by name; nothing in the file is executed or unpickled.

    Raises:
        CheckpointError: it is not such an archive, is damaged, has its weights pickled, or unpacks to more than it is.
    """
    require_stored(path, f"{path} cannot be read as an exported program: it is not a .pt2 archive; {_RESAVE}")
    unreadable = f"{path} cannot be read as an exported program"  # whatever damaged JSON, sizes and entries lead to
    with reading(CheckpointError, unreadable), zipfile.ZipFile(path) as archive:
        found = _weights(archive, path)
    require_plain_tensors(found, path)
    return found


def program_metadata(path: Path) -> dict[str, str]:
    """The extra files of the program, as text by name: the input contract, where this package has written it.

    Raises:
        CheckpointError: it is damaged.
    """
    unreadable = f"{path} cannot be read as an exported program"
    with reading(CheckpointError, unreadable), zipfile.ZipFile(path) as archive:
        found = {name.partition(_EXTRA)[2]: name for name in archive.namelist() if _EXTRA in name}
        sizes = [archive.getinfo(name).file_size for name in found.values()]
        if len(found) > MOST_TENSORS or sum(sizes) > MOST_HEADER:
            raise CheckpointError(f"{path} has {sum(sizes):,} bytes of notes, and {MOST_HEADER:,} are the most")
        return {key: archive.read(name).decode("utf-8", "backslashreplace") for key, name in found.items()}


def _weights(archive: zipfile.ZipFile, path: Path) -> dict[str, Tensor]:
    names = archive.namelist()
    root = names[0].partition("/")[0] if names else ""
    listing = f"{root}/data/weights/{_MODEL}_weights_config.json"
    if f"{root}/archive_format" not in names or archive.read(f"{root}/archive_format") != b"pt2":
        raise CheckpointError(f"{path} cannot be read as an exported program: it is not a .pt2 archive; {_RESAVE}")
    if listing not in names:
        raise CheckpointError(
            f"{path} holds no program called {_MODEL!r} with its weights as plain data, as torch 2.9 and later write "
            f"it; {_RESAVE}"
        )
    if (length := archive.getinfo(listing).file_size) > MOST_HEADER:
        raise CheckpointError(f"{path} lists its weights in {length:,} bytes, and {MOST_HEADER:,} are the most")
    config = json.loads(archive.read(listing))["config"]
    if len(config) > MOST_TENSORS:
        raise CheckpointError(f"{path} lists {len(config):,} tensors, and {MOST_TENSORS:,} are the most that are read")
    read: dict[str, bytearray] = {}  # tied weights are one entry of the archive with several names
    return {name: _tensor(archive, root, name, entry, path, read) for name, entry in config.items()}


def _tensor(
    archive: zipfile.ZipFile, root: str, name: str, entry: dict[str, Any], path: Path, read: dict[str, bytearray]
) -> Tensor:
    meta = entry["tensor_meta"]
    if entry["use_pickle"] is not False or meta is None:
        raise CheckpointError(f"{path} has {name!r} as a pickle, which could run any code and is not loaded; {_RESAVE}")
    if meta["layout"] != _STRIDED or meta["dtype"] not in _TYPES:
        raise CheckpointError(f"{path} has {name!r} in a form that is not a plain array; {_RESAVE}")
    place = f"{root}/data/weights/{str(entry['path_name'])[:1000]}"
    if place not in read:
        read[place] = bytearray(archive.read(place))
    content = read[place]
    size, stride = ([int(number["as_int"]) for number in meta[key]] for key in ("sizes", "strides"))
    dtype = _TYPES[meta["dtype"]]
    flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
    return flat.as_strided(size, stride, int(meta["storage_offset"]["as_int"]))  # refuses to leave the memory of `flat`
