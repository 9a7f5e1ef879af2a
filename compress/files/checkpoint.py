"""Reads and writes weights: `.pt` and `.pth` (tensors only, without executing anything in them) and `.safetensors`."""

import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from compress.errors import CheckpointError, CompressError, InputError, OutputError
from compress.files.atomic import archive, atomic, require_path
from compress.files.foreign import reading
from compress.files.layouts import fitting, only, sets_of_weights, way_out
from compress.files.packing import KEY as PACKING
from compress.files.packing import packed, unpacked
from compress.files.pickled import StrangePickleError, require_cheap
from compress.options import shown
from compress.slimming.edits import apply_edits, edits_from_json

_RESAVE = 'torch.save(model.state_dict(), "model.pt")'

MOST_TENSORS = 100_000
"""The most tensors of a file: each takes a kilobyte in Python, whatever it takes in the file."""

MOST_HEADER = 16 * 2**20
"""Bytes of the list of names and shapes, which take many times as much in Python: a hundred thousand tensors."""

_MOST_TIES = 16
"""Tensors may share their memory, as tied weights do, and be together this many times as large as their file."""

# torch has types that it stores and cannot compute with, such as int4 and bits8.
_TYPES = {
    *(torch.bool, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
}
_LEGACY_PICKLES = 5
"""Pickles of a file without an archive: a number, a version, the machine, the weights, the names of their storages."""

_log = logging.getLogger(__name__)

_FOLDABLE = {torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights.

    sets: tensors by qualified name, by the key in the file that has them, such as "state_dict"; "" is the file itself.
    metadata: text by key (a `.pt` file has none).
    """

    sets: dict[str, dict[str, Tensor]]
    metadata: dict[str, str]

    def only(self, source: str) -> dict[str, Tensor]:
        """The weights, where it is not known of which network. Raises CheckpointError: there are several sets."""
        return only(self.sets, source)


def read_weights(path: str | os.PathLike[str]) -> WeightsFile:
    """Read a state_dict onto the CPU; masks of torch.nn.utils.prune are multiplied into their weights.

    A `.pt` file may also be a training checkpoint that keeps its weights, or several sets of them, under keys.

    Raises:
        CheckpointError: the file is missing, empty, damaged, or holds anything but tensors (a pickled module, say).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is {'a folder, not a file of weights' if path.exists() else 'not a file'}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes): write it again with `{_RESAVE}`")
    weights = _read_safetensors(path) if path.suffix == ".safetensors" else WeightsFile(_read_torch(path), {})
    return WeightsFile({key: _fold(tensors) for key, tensors in weights.sets.items()}, weights.metadata)


def write_weights(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    sparse: bool = False,
) -> None:
    """Write a state_dict as `.pt`, `.pth` or `.safetensors`; the same tensors give the same bytes.

    Every name gets a tensor of its own: tensors that are tied, or views of a larger one, are written out in full, so
    that any reader can load the file strictly.

    Args:
        sparse: of `.safetensors`, whether zeros are packed; see `compress.files.packing`.

    Raises:
        OutputError: the file cannot be written, its suffix is none of the three, or a `.pt` is to hold metadata or to
            be packed.
    """
    path = Path(path)
    own = _each_its_own(tensors)
    if sparse:
        own, packing = packed(own)
        metadata = {**(metadata or {}), PACKING: packing}
    if path.suffix == ".safetensors":
        with atomic(path) as temporary:
            _write_safetensors(own, temporary, metadata or {})
    elif path.suffix not in (".pt", ".pth"):
        raise OutputError(f"{path} ends in {path.suffix!r}: weights are written as .pt, .pth or .safetensors")
    elif metadata:
        raise OutputError(f"{path} cannot hold metadata ({', '.join(metadata)}): write a .safetensors file")
    else:
        # Given a path, torch.save would write the temporary file's name into the archive.
        with atomic(path) as temporary, archive(temporary) as file:
            torch.save(own, file)


def load_weights(model: nn.Module, weights: WeightsFile, source: str) -> None:
    """Copy `weights` into `model`, in place and strictly; a model that they do not fit does not change.

    The file's names may have parts of wrappers, as `compress.files.layouts` says. Numbers become those of the network's
    type: a network in float32 is in float32 afterwards, whatever the file's.

    One that was built on the device `meta` takes the tensors themselves, so that it costs no memory of its own.

    Args:
        source: where the weights are from (a path), for the error text.

    Raises:
        CheckpointError: names that are missing or unknown, wrong shapes or kinds of number (all of them at once),
            tensors with NaN or infinities, or two sets of weights that fit. A buffer may hold infinities, as attention
            masks do.
    """
    wanted = model.state_dict()
    found = fitting(weights.sets, wanted, source)
    mistakes = _mismatches(wanted, found)
    if mistakes:
        ending = (
            "It holds a slim network: compress.load(path, model=...) rebuilds its shapes from the dense one"
            if "shape_edits" in weights.metadata
            else way_out(weights.sets, wanted, source) or "Load it into the network that it was saved from"
        )
        raise CheckpointError(
            f"{source} does not fit the network {type(model).__name__}: {'; '.join(mistakes)}. {ending}"
        )
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    broken = [
        name
        for name, tensor in wanted.items()
        if _is_broken(found[name].to(tensor.dtype), infinity_allowed=name not in parameters)
    ]
    if broken:
        raise CheckpointError(
            f"{source} has NaN or infinite values in {_listed(broken)}: use a checkpoint from before training diverged"
        )
    _note_types(wanted, found, source)
    if any(tensor.is_meta for tensor in wanted.values()):  # it has no memory to copy into
        model.load_state_dict({name: found[name].to(tensor.dtype) for name, tensor in wanted.items()}, assign=True)
    else:
        model.load_state_dict(found)


def load(path: str | os.PathLike[str], model: Callable[[], nn.Module]) -> nn.Module:
    """Rebuild a network from a file of weights, slim or not, without unpickling anything.

    Checkpoints of DataParallel, `torch.compile`, Lightning and other training code are files of weights too; see
    `compress.files.layouts`. The network keeps its own type of number.

    Args:
        model: builds the network in its original, dense size, e.g. the class itself.

    Returns:
        The network in evaluation mode, shrunk as the file's metadata says, with the file's weights.

    Raises:
        CheckpointError: the file is unreadable, does not fit the network, or holds several sets of weights that do.
    """
    require_path("path", path)
    if not callable(model) or isinstance(model, nn.Module):
        raise InputError(f"model: found {shown(model)}; expected what builds the network, such as its class")
    return rebuild(read_weights(path), lambda: _built(model), str(path))


def _built(model: Callable[[], nn.Module]) -> nn.Module:
    """The network that the user's function builds."""
    try:
        network = model()
    except CompressError:
        raise
    except Exception as error:  # a function of the user's own may raise anything
        raise InputError(f"model: it failed, called without arguments: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"model: it built {shown(network)}; expected a network, an object of torch.nn.Module")
    return network


def rebuild(weights: WeightsFile, model: Callable[[], nn.Module], source: str) -> nn.Module:
    """`load`, of weights that are read already; `source` is where they are from, for the error text."""
    network = model()
    if "shape_edits" in weights.metadata:
        try:
            network = apply_edits(network, edits_from_json(weights.metadata["shape_edits"]))
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from error
    load_weights(network, weights, source)
    return network.eval()


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
            f"{path} has tensors that are not plain arrays of numbers: {_listed(strange)}; save dense ones, on the CPU"
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


def _each_its_own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in the same memory; copied only where necessary."""
    own: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        found = tensor.detach().cpu()
        memory = found.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() != found.nbytes or not found.is_contiguous():
            found = found.clone(memory_format=torch.contiguous_format)
        own[name] = found
        taken.add(found.untyped_storage().data_ptr())
    return own


def _write_safetensors(tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Into `path`, which exists and keeps its mode: the library's file is its owner's alone. Raises OSError."""
    mode = path.stat().st_mode
    try:
        safetensors.torch.save_file(tensors, path, dict(metadata) or None)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:  # its order changes from call to call
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "the library writes the same characters in another order"
        file.seek(8)
        file.write(text.ljust(size))


def _read_safetensors(path: Path) -> WeightsFile:
    with path.open("rb") as start:
        header = int.from_bytes(start.read(8), "little")
    if MOST_HEADER < header <= path.stat().st_size:
        raise CheckpointError(f"{path} is damaged: its header has {header:,} bytes, and {MOST_HEADER:,} are the most")
    damaged = f"{path} is damaged or not a safetensors file: write it again"
    with reading(CheckpointError, damaged), safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a mapping)
        metadata = file.metadata() or {}
    require_plain_tensors(tensors, path)
    packing = metadata.pop(PACKING, None)
    if packing is not None:
        tensors = unpacked(tensors, packing, path.stat().st_size, damaged)
    return WeightsFile({"": tensors}, metadata)


def _read_torch(path: Path) -> dict[str, dict[str, Tensor]]:
    damaged = f"{path} is damaged or was not written by torch.save: write it again with `{_RESAVE}`"
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"  # as torch itself decides
        if zipped:
            require_stored(path, damaged)
        try:
            _require_cheap(path, zipped, file)
            with warnings.catch_warnings(action="ignore"):  # torch warns of a TorchScript archive, then refuses it
                content = torch.load(path, map_location="cpu", weights_only=True)
            return _state_dicts(content, path)
        except CheckpointError:
            raise
        except StrangePickleError as error:
            raise CheckpointError(
                f"{path} is not read, since {error}: save the weights alone, as dense tensors on the CPU, "
                f"with `{_RESAVE}`"
            ) from error
        except Exception as error:  # torch.load raises whatever its damaged input leads to, KeyError included
            refused = re.search(r"GLOBAL (\S+)", str(error))
            raise CheckpointError(
                f"{path} holds the pickled object {refused[1]}, which could run any code and is not loaded: "
                f"save the weights alone with `{_RESAVE}`"
                if refused
                else damaged
            ) from error


def _require_cheap(path: Path, zipped: bool, file: IO[bytes]) -> None:
    """Raises StrangePickleError where one of the pickles in the file would cost more than it may."""
    size = path.stat().st_size
    if zipped:  # by torch's own reader, since two readers may find two different entries of one name
        require_cheap(BytesIO(torch._C.PyTorchFileReader(os.fspath(path)).get_record("data.pkl")), size, _trusted())
        return
    file.seek(0)
    for _ in range(_LEGACY_PICKLES):
        require_cheap(file, size, _trusted())


def _trusted() -> set[str]:
    """Names of what the user has allowed by `torch.serialization.add_safe_globals`."""
    allowed = torch.serialization.get_safe_globals()
    return {each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in allowed}


def _state_dicts(content: Any, path: Path) -> dict[str, dict[str, Tensor]]:
    """The class's own methods are called, not those that an object's attributes could hide."""
    if not isinstance(content, dict) or not dict.__len__(content):
        what = "nothing" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} holds {what} instead of weights by name: save it with `{_RESAVE}`")
    found = sets_of_weights(content)
    if not found:
        inner = dict.get(content, "state_dict")
        items = dict.items(inner if isinstance(inner, dict) else content)
        strange = [_named(key) for key, value in items if not (isinstance(key, str) and isinstance(value, Tensor))]
        raise CheckpointError(
            f"{path} has entries that are not tensors ({_listed(strange)}): save the weights alone with `{_RESAVE}`"
        )
    for tensors in found.values():
        require_plain_tensors(tensors, path)
    return {key: {name: Tensor.detach(tensor) for name, tensor in own.items()} for key, own in found.items()}


def _named(key: object) -> str:
    return str(key) if isinstance(key, str | int | float | None) else f"a {type(key).__name__}"


def _fold(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold `x_orig` and `x_mask` into `x`; a decaying mask also has `x_pruned` and `x_start`."""
    folded = dict(tensors)
    for name in [name.removesuffix("_orig") for name in tensors if name.endswith("_orig")]:
        orig, mask = tensors[f"{name}_orig"], tensors.get(f"{name}_mask")
        if mask is None or mask.shape != orig.shape or not {orig.dtype, mask.dtype} <= _FOLDABLE:
            continue
        pruned, start = tensors.get(f"{name}_pruned"), tensors.get(f"{name}_start")
        if start is not None and pruned is not None and mask.dtype != torch.bool:
            if not (start.shape == pruned.shape == orig.shape and pruned.dtype == torch.bool):
                continue
            orig = torch.where(pruned, start, orig)
        # Not the plain product: -3.0 * 0.0 is -0.0, and a NaN would survive its own removal.
        folded[name] = torch.where(mask == 0, torch.zeros_like(orig), orig * mask)
        for suffix in ("_orig", "_mask", "_pruned", "_start"):
            folded.pop(name + suffix, None)
    return folded


def _mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "unknown to the network": [name for name in found if name not in wanted],
        "of another shape": [
            f"{name} {list(found[name].shape)} instead of {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ],
        "of another kind": [  # read as the wrong type, bytes are numbers too
            f"{name} {_type(found[name])} instead of {_type(tensor)}"
            for name, tensor in wanted.items()
            if name in found and _kind(found[name]) != _kind(tensor)
        ],
    }
    return [f"{what}: {_listed(names)}" for what, names in kinds.items() if names]


def _note_types(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Say which types of numbers become others, as a network does not take its type from a file."""
    pairs = [(_type(found[name]), _type(tensor)) for name, tensor in wanted.items()]
    for old, new in dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]):
        _log.info("%s: weights in %s are loaded into a network in %s", source, old, new)


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "real" if tensor.is_floating_point() else "whole"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_broken(tensor: Tensor, infinity_allowed: bool) -> bool:
    return bool(tensor.isnan().any() if infinity_allowed else not tensor.isfinite().all())


def _listed(names: Sequence[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
