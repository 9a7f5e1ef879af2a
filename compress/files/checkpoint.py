"""Reads and writes weights: `.pt` and `.pth` (tensors only, without executing anything in them) and `.safetensors`."""

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from compress.errors import CheckpointError, CompressError, InputError, OutputError
from compress.files.atomic import archive, atomic, require_path
from compress.files.bounded import MOST_HEADER
from compress.files.fitting import Fit, Needs, chosen, note, where
from compress.files.foreign import reading
from compress.files.layouts import Contents, only, under
from compress.files.limits import require_plain_tensors
from compress.files.packing import KEY as PACKING
from compress.files.packing import most, packed, size_of, unpacked
from compress.files.places import place, shards
from compress.files.rounding import KEY as ROUNDING
from compress.files.rounding import restored, rounded
from compress.files.torch_file import RESAVE, read_torch
from compress.options import shown
from compress.slimming.edits import apply_edits, edits_from_json
from compress.wording import listed

_log = logging.getLogger(__name__)

_FOLDABLE = {torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights.

    sets: tensors by qualified name, by the key in the file that has them, such as "state_dict"; "" is the file itself.
    metadata: text by key (a `.pt` file has none).
    others: keys of what is not a set, with the classes of pickled objects in it, which are not read.
    """

    sets: dict[str, dict[str, Tensor]]
    metadata: dict[str, str]
    others: dict[str, list[str]] = field(default_factory=dict)

    def only(self, source: str) -> dict[str, Tensor]:
        """The weights, where it is not known of which network: `layouts.only`; the log says which they are."""
        key = only(self.sets)
        if key or len(self.sets) > 1 or self.others:
            fit = Fit(key, "", "", {name: name for name in self.sets[key]}, 0, 0)
            _log.info("%s", note(Contents(self.sets, self.others), fit, source))
        return self.sets[key]


def read_weights(path: str | os.PathLike[str]) -> WeightsFile:
    """Read weights onto the CPU; masks of torch.nn.utils.prune are multiplied into them.

    A `.pt` file may also be a training checkpoint that keeps its weights, or several sets of them, under keys. `path`
    may be a folder of transformers or Accelerate, or an index of shards; "model.pt#ema" names a key.

    Raises:
        CheckpointError: the file is missing, empty, damaged, or holds no tensors by name (a pickled module, say).
    """
    found = place(Path(path))
    weights = _read_shards(found.file) if found.sharded else _read_file(found.file)
    if found.key is not None:
        part = under(Contents(weights.sets, weights.others), found.key, str(found.file))
        weights = WeightsFile(part.sets, weights.metadata, part.others)
    folded = {key: _fold(tensors) for key, tensors in weights.sets.items()}
    return WeightsFile(folded, weights.metadata, weights.others)


def _read_file(path: Path, *, mapped: bool = False) -> WeightsFile:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes): write it again with `{RESAVE}`")
    _refuse_onnx(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    found = read_torch(path, mapped=mapped)
    return WeightsFile(found.sets, {}, found.others)


def _refuse_onnx(path: Path) -> None:
    if path.suffix == ".onnx":
        raise CheckpointError(f"{path} is an ONNX file, which only runs: give the weights that it was made of")


def _read_shards(index: Path) -> WeightsFile:
    """The tensors of all shards; they remain in the files until they are used.

    Raises:
        CheckpointError: a shard lacks a tensor that the index says it has, or has another one.
    """
    tensors: dict[str, Tensor] = {}
    for path, names in shards(index).items():
        found = _read_file(path, mapped=True).sets.get("", {})
        if lacking := [name for name in names if name not in found]:
            raise CheckpointError(f"{path} lacks tensors that {index.name} says it has: {listed(lacking)}")
        if more := sorted(found.keys() - set(names)):
            raise CheckpointError(f"{path} has tensors that {index.name} does not give to it: {listed(more)}")
        tensors |= found
    return WeightsFile({"": tensors}, {})


def write_weights(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    sparse: bool = False,
    int8: Collection[str] = (),
) -> None:
    """Write a state_dict as `.pt`, `.pth` or `.safetensors`; the same tensors give the same bytes.

    Every name gets its own tensor: tensors that are tied, or views of a larger one, are written out in full, so
    that any reader can load the file strictly.

    Args:
        sparse: of `.safetensors`, whether zeros are packed; see `compress.files.packing`.
        int8: of `.safetensors`, the names of the tensors to round to 8 bits; see `compress.files.rounding`.

    Raises:
        OutputError: the file cannot be written, its suffix is none of the three, or a `.pt` is to hold metadata or to
            be packed or rounded.
    """
    path = Path(path)
    own = _each_its_own(tensors)
    size = size_of(own)
    if int8:
        own, rounding = rounded(own, int8)
        metadata = {**(metadata or {}), ROUNDING: rounding}
    if sparse:
        own, packing = packed(own, size)
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


def load_weights(model: nn.Module, weights: WeightsFile, source: str) -> str | None:
    """Copy `weights` into `model`, in place and strictly; a model that they do not fit does not change.

    The file may have others beside them, and its names parts of wrappers, as `compress.files.fitting` says. Numbers
    become those of the network's type: a network in float32 is in float32 afterwards, whatever the file's.

    One that was built on the device `meta` takes the tensors themselves, so that it needs no further memory.

    Args:
        source: where the weights are from (a path), for the error text.

    Returns:
        What was unwrapped and left out, in a sentence, which is logged too; None where nothing was.

    Raises:
        CheckpointError: names that are missing or unknown, wrong shapes or kinds of number (all of them at once), or
            tensors with NaN or infinities. A buffer may hold infinities, as attention masks do.
    """
    needs, file = Needs.of(model), Contents(weights.sets, weights.others)
    fit, others = chosen(file, needs)
    found = {own: file.sets[fit.key][old] for own, old in fit.names.items()}
    if mistakes := _mismatches(needs, found):
        ending = (
            "It holds a slim network: compress.load(path, model=...) rebuilds its shapes from the dense one"
            if "shape_edits" in weights.metadata
            else "Load it into the network that it was saved from"
        )
        closest = f" (closest are {where(fit)})" if len(file.sets) > 1 or where(fit) != "the weights" else ""
        raise CheckpointError(
            f"{source} does not fit the network {type(model).__name__}{closest}: {'; '.join(mistakes)}. {ending}"
        )
    found = _completed(needs, found, source)
    wanted = needs.tensors
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    broken = [
        name
        for name, tensor in wanted.items()
        if _is_broken(found[name].to(tensor.dtype), infinity_allowed=name not in parameters)
    ]
    if broken:
        raise CheckpointError(
            f"{source} has NaN or infinite values in {listed(broken)}: use a checkpoint from before training diverged"
        )
    if text := note(file, fit, source, needs.lacking(fit.names), others):
        _log.info("%s", text)
    _note_types(wanted, found, source)
    if any(tensor.is_meta for tensor in wanted.values()):  # it has no memory to copy into
        model.load_state_dict({name: found[name].to(tensor.dtype) for name, tensor in wanted.items()}, assign=True)
    else:
        model.load_state_dict(found, strict=False)  # a module's extra state is not a tensor, and remains its own
    return text


def load(path: str | os.PathLike[str], model: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Rebuild a network from a file of weights, slim or not, without unpickling anything.

    Checkpoints of DataParallel, `torch.compile`, Lightning, transformers and other training code load, too; the log
    says what was unwrapped. The network keeps its own dtype.

    Args:
        path: the file, a folder of transformers or Accelerate, or an index of shards; "model.pt#ema" selects the
            weights under the key "ema".
        model: a function that builds the network in its original, dense size, such as its class.

    Returns:
        The network in evaluation mode, shrunk as the file's metadata says, with the file's weights.

    Raises:
        InputError: `model` is missing, or does not build a network.
        CheckpointError: the file is unreadable, or does not fit the network.
    """
    require_path("path", path)
    file = place(Path(path)).file
    if file.suffix == ".pt2":
        raise InputError(
            f'{file} is a program, a network by itself: load it with torch.export.load("{file.name}").module()'
        )
    _refuse_onnx(file)
    if model is None:
        raise InputError(
            f"model: it is missing; {file} holds weights, so name what builds their network, as in "
            f'compress.load("{file.name}", model=Net). Only a .pt2 program is a network by itself'
        )
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
    rounding = metadata.pop(ROUNDING, None)
    if rounding is not None:
        tensors = restored(tensors, rounding, most(path.stat().st_size), damaged)
    return WeightsFile({"": tensors}, metadata)


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


def _mismatches(needs: Needs, found: Mapping[str, Tensor]) -> list[str]:
    wanted = needs.tensors
    kinds = {
        "missing": [name for name in needs.lacking(found) if name not in needs.spare],
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
    return [f"{what}: {listed(names)}" for what, names in kinds.items() if names]


def _completed(needs: Needs, found: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """All of the network's tensors: one that it ties may be in the file once, and it has built its own counters.

    Raises:
        CheckpointError: the file has other values where the network ties two tensors.
    """
    tied: dict[str, str] = {}
    for name in found:
        other = tied.setdefault(needs.first[name], name)
        if other != name and not torch.equal(found[other], found[name]):
            raise CheckpointError(
                f"{source} has different values in {other} and {name}, which the network ties: build it without the tie"
            )
    return {
        name: found[tied[first]] if (first := needs.first[name]) in tied else tensor
        for name, tensor in needs.tensors.items()
    }


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
