"""Where weights are: in one file, in a folder that a library has saved, or in shards that an index lists.

"model.pt#ema" means the weights under the key "ema" of model.pt.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from compress.errors import CheckpointError
from compress.files.bounded import MOST_HEADER, MOST_TENSORS, read_json, strange
from compress.files.torchscript import require_no_torchscript
from compress.wording import because, listed, missing

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""Suffixes of files of weights; torch's may also have others, such as .pth.tar."""

INDEX = ".index.json"
"""How the names of lists of shards end, as transformers writes them."""

_STEMS = ("model", "pytorch_model", "diffusion_pytorch_model", "pytorch_model_fsdp")
_IN_FOLDERS = tuple(f"{stem}{kind}{end}" for kind in (".safetensors", ".bin") for stem in _STEMS for end in ("", INDEX))
"""What transformers, diffusers, their Trainer and Accelerate call the weights in a folder, the preferred ones first."""


_STATE = re.compile(r"optim|scheduler|scaler|rng|random|training_args")
"""In names of files that training code writes beside the weights."""


@dataclass(frozen=True)
class Place:
    """A file of weights or an index of shards, and the key of a set in it, if one is named."""

    file: Path
    key: str | None = None

    @property
    def sharded(self) -> bool:
        return self.file.name.endswith(INDEX)


def place(path: Path, way_out: str = "name a file of weights") -> Place:
    """What `path` means: a file, a folder, or either of them with #key.

    Raises:
        CheckpointError: there is no such file, or the folder has none whose name says that it is the weights; the
            message ends with `way_out` or a better one. Or the file cannot be read, or is a TorchScript archive.
    """
    try:
        path, key = without_key(path)
        if path.is_dir():
            path = _in_folder(path, way_out)
        if not path.exists():
            raise CheckpointError(missing(path, way_out))
        if kind := strange(path):
            raise CheckpointError(f"{path} is {kind}, not a file of weights; {way_out}")
        require_no_torchscript(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {because(error)}") from None
    return Place(path, key)


def without_key(path: Path) -> tuple[Path, str | None]:
    """The path before a "#" and the key after it; a file may have one in its own name."""
    text = str(path)
    for start in (start for start, letter in enumerate(text) if letter == "#"):
        if start and not path.exists() and Path(text[:start]).exists():
            return Path(text[:start]), text[start + 1 :]
    return path, None


def _in_folder(folder: Path, way_out: str) -> Path:
    for name in _IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    inside = sorted(entry for entry in folder.iterdir())
    checkpoints = [each for each in inside if each.is_dir() and any((each / name).is_file() for name in _IN_FOLDERS)]
    files = [each for each in inside if each.suffix in SUFFIXES and each.is_file() and not _STATE.search(each.name)]
    if checkpoints:
        latest = max(checkpoints, key=lambda each: each.stat().st_mtime)
        way_out = f"name one of the folders in it that hold weights, such as {latest}"
    elif files:
        way_out = f"name a file in it, such as {files[0]}"
    elif (folder / ".metadata").is_file():
        way_out = (
            "it is a distributed checkpoint: write it as one file with `python -m torch.distributed.checkpoint."
            f"format_utils dcp_to_torch {folder} model.pt`"
        )
    raise CheckpointError(f"{folder} is a folder, not a file of weights; {way_out}")


def shards(index: Path) -> dict[Path, list[str]]:
    """The files that an index lists, each with the names of its tensors.

    They must lie beside it, as ordinary files. A link may lead to the folder `blobs` of Hugging Face's cache, whose
    snapshots are links. The total size that an index claims is not used.

    Raises:
        CheckpointError: the index is damaged, names files elsewhere, or files that are missing.
    """
    try:
        content = read_json(index, MOST_HEADER)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} cannot be read: {because(error)}") from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) and file for file in names.values()):
        raise CheckpointError(f'{index} is not an index of shards: it needs "weight_map", with a file for each tensor')
    if len(names) > MOST_TENSORS:
        raise CheckpointError(f"{index} lists {len(names):,} tensors, and {MOST_TENSORS:,} are the most that are read")
    found: dict[str, list[str]] = {}
    for name, file in names.items():
        found.setdefault(file, []).append(name)
    _require_beside(index, found)
    return {index.parent / file: own for file, own in found.items()}


def _require_beside(index: Path, names: Iterable[str]) -> None:
    missing = []
    for name in names:
        plain = os.path.basename(name) == name and not set(name) & set("\\:\0") and not name.startswith(".")
        if not plain or not name.endswith((".safetensors", ".bin")):
            raise CheckpointError(
                f"{index} names the shard {name!r:.200}; shards are .safetensors or .bin files beside their index"
            )
        path = index.parent / name
        if not path.exists():
            missing.append(name)
        elif kind := strange(path):
            raise CheckpointError(f"{path} is {kind}, not a shard")
        elif not _is_near(path):
            raise CheckpointError(f"{path} is a link to another folder: copy the shard to its place")
    if missing:
        raise CheckpointError(f"{index} names shards that are missing: {listed(missing)}; download or copy them again")


def _is_near(path: Path) -> bool:
    folder, target = path.parent.resolve(), path.resolve()
    cache = folder.parent.parent / "blobs"
    return target.parent == folder or (folder.parent.name == "snapshots" and target.parent == cache)


def files_of(found: Place) -> list[Path]:
    """Every file that is read: the index first, then its shards in the order of their names."""
    return [found.file, *(sorted(shards(found.file)) if found.sharded else ())]


def is_weights(file: Path) -> bool:
    """Whether its name says that it is one; torch's checkpoints are also called model.pth.tar."""
    return file.suffix in SUFFIXES or file.name.endswith((INDEX, ".pth.tar", ".pt.tar"))


def size_of(found: Place) -> int:
    """Bytes of the weights' files together."""
    return sum(path.stat().st_size for path in files_of(found))


def digest(found: Place) -> str:
    """The sha256 of the file's bytes; of several files, or with a key, that of the list of their names and digests."""
    files = files_of(found)
    sums = [_sha256(path) for path in files]
    if len(files) == 1 and found.key is None:
        return sums[0]
    lines = [f"{path.name} {own}" for path, own in zip(files, sums, strict=True)]
    return hashlib.sha256("\n".join([*lines, found.key or ""]).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
