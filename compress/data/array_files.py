"""Arrays from untrusted files, NumPy's .npz and MNIST's idx: their claims are checked before any memory is taken."""

import math
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from compress.data.reading import opened
from compress.errors import DataError
from compress.wording import did_you_mean

LARGEST_BYTES = 8 << 30
"""The most that is held in memory."""

SMALL_BYTES = 64 << 20
"""An archive of any size may unpack to this much."""

LARGEST_FACTOR = 20
"""How many times as large as its file an archive beyond `SMALL_BYTES` may be when it is unpacked."""

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy writes; others unpack a few kilobytes to hundreds of megabytes at once."""

ENCRYPTED = 1  # of a zip member's flags
LONGEST_HEADER = 10_000  # characters that NumPy evaluates as a literal
PIECE = 1 << 20
DIMENSIONS = 8


def read_npz(path: Path, others: Sequence[str] = ()) -> list[NDArray[Any]]:
    """The arrays `images`, `labels` and `others` of an .npz file, without pickle; any other array is left out.

    Raises:
        DataError: it is not such an archive, is damaged, or unpacks to far more than its size.
    """
    with opened(path, ".npz file", links=True) as file, zipfile.ZipFile(file) as archive:
        return _arrays(archive, ("images", "labels", *others), path, os.fstat(file.fileno()).st_size)


def array_names(path: Path) -> list[str]:
    """The names of the arrays of an .npz file. Raises DataError where it is not such an archive."""
    with opened(path, ".npz file", links=True) as file, zipfile.ZipFile(file) as archive:
        return list(dict.fromkeys(name.removesuffix(".npy") for name in archive.namelist()))


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz file by name, all of them by default, as `read_npz`. Raises DataError."""
    names = array_names(path) if names is None else names
    with opened(path, ".npz file", links=True) as file, zipfile.ZipFile(file) as archive:
        return dict(zip(names, _arrays(archive, names, path, os.fstat(file.fileno()).st_size), strict=True))


def _arrays(archive: zipfile.ZipFile, names: Sequence[str], path: Path, stored: int) -> list[NDArray[Any]]:
    """The arrays of these names, of an archive of `stored` bytes."""
    members = [_member(archive, name, names, path) for name in names]
    if sum(member.compress_size for member in members) > stored:
        raise DataError(f"{path} is not a readable .npz file (its entries overlap).")
    size = sum(member.file_size for member in members)
    most = min(LARGEST_BYTES, max(SMALL_BYTES, LARGEST_FACTOR * stored))
    if size > most:
        raise DataError(
            f"{path} has {stored:,} bytes and unpacks to {size:,}; the most is {most:,}. Save it uncompressed "
            f"(np.savez) or, beyond {LARGEST_BYTES:,}, use {{factory: ...}}."
        )
    return [_array(archive, member, path) for member in members]


def _member(archive: zipfile.ZipFile, name: str, names: Sequence[str], path: Path) -> zipfile.ZipInfo:
    """The one entry of that name. Raises DataError for none, several, or one that NumPy would not write."""
    found = [member for member in archive.infolist() if member.filename == f"{name}.npy"]
    if len(found) > 1:
        raise DataError(f"{path} has the array {name} {len(found)} times; keep one of them.")
    if not found:
        _refuse_absent(archive, names, path)
    (member,) = found
    if member.flag_bits & ENCRYPTED:
        raise DataError(f"{path}: {name} is encrypted; save it without a password.")
    if member.compress_type not in COMPRESSIONS:
        raise DataError(
            f"{path}: {name} is compressed by the zip method {member.compress_type}; save it with np.savez or "
            f"np.savez_compressed."
        )
    return member


def _refuse_absent(archive: zipfile.ZipFile, names: Sequence[str], path: Path) -> None:
    there = [name.removesuffix(".npy") for name in archive.namelist()]
    lacking = sorted(set(names).difference(there))
    shown = ", ".join(there[:10]) + (f" and {len(there) - 10:,} more" if len(there) > 10 else "")
    other = "; arrays of other names are read with {npz: FILE, inputs: NAME}" if "images" in names else ""
    raise DataError(
        f"{path} has no array {' nor '.join(lacking)}; it holds {shown or 'nothing'}{other}"
        f"{did_you_mean(lacking[0], there)}"
    )


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    """The array that an entry holds, exactly as many bytes as its header says; zipfile checks its CRC at the end."""
    with archive.open(member) as stream:
        shape, fortran, dtype = _header(stream, member.filename, path)
        count = math.prod(shape)
        if stream.tell() + count * dtype.itemsize != member.file_size:
            raise DataError(
                f"{path}: the header of {member.filename} claims {dtype} of shape {list(shape)}, which "
                f"its {member.file_size:,} bytes do not fit; the file is damaged."
            )
        array = np.empty(count, dtype)
        content, filled = array.view(np.uint8), 0
        while piece := stream.read(PIECE):
            content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        if filled != len(content):
            raise EOFError(f"{member.filename} ends after {filled:,} of {len(content):,} bytes")
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _header(stream: IO[bytes], name: str, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether in Fortran's order, dtype) of a .npy file with up to `DIMENSIONS` of plain numbers."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise DataError(f"{path}: {name} has version {version} of NumPy's format; arrays of numbers have 1.0 or 2.0.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python and NumPy comment on odd literals
        shape, fortran, dtype = readers[version](stream, max_header_size=LONGEST_HEADER)
    if dtype.hasobject:
        raise DataError(f"{path}: {name} holds Python objects, which are never loaded (allow_pickle=False).")
    if dtype.kind not in "biufc":
        raise DataError(f"{path}: {name} holds {dtype}; only arrays of numbers are read.")
    if len(shape) > DIMENSIONS or any(type(length) is not int or length < 0 for length in shape):
        raise DataError(
            f"{path}: {name} has the shape {shape!r:.100}; it needs at most {DIMENSIONS} lengths, 0 or more."
        )
    return shape, fortran, dtype


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The uint8 array of an idx file (LeCun), unpacked: magic number, lengths as big-endian integers, bytes.

    Raises:
        DataError: it is not such a file, or not as long as its header says.
    """
    with opened(path, "idx file", links=True) as file:
        magic, header = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
        start, size = file.read(header), os.fstat(file.fileno()).st_size
        if len(start) < header or start[:4] != magic:
            raise DataError(f"{path} is damaged: it begins with {start[:4].hex() or 'nothing'} and not {magic.hex()}.")
        shape = tuple(int(length) for length in np.frombuffer(start, ">u4", offset=4))
        if header + math.prod(shape) != size:
            raise DataError(
                f"{path} is damaged: its header claims the lengths {list(shape)}, which take "
                f"{header + math.prod(shape):,} bytes, and it has {size:,}."
            )
        return np.fromfile(file, np.uint8, math.prod(shape)).reshape(shape)
