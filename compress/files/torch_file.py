"""Reads what torch.save has written: tensors and plain containers, without executing anything in the file."""

import os
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from compress.errors import CheckpointError
from compress.files.layouts import Contents, contents
from compress.files.limits import require_plain_tensors, require_stored
from compress.files.pickled import Foreign, StrangePickleError, require_cheap
from compress.files.unread import Unread, skipping, unread
from compress.wording import listed

RESAVE = 'torch.save(model.state_dict(), "model.pt")'

_LEGACY_PICKLES = 5
"""Pickles of a file without an archive: a number, a version, the machine, the weights, the names of their storages."""


def read_torch(path: Path, *, mapped: bool = False) -> Contents:
    """The weights in the file, on the CPU, and what is beside them. Objects of foreign classes are skipped.

    Args:
        mapped: leave an archive's tensors in the file until they are used.

    Raises:
        CheckpointError: it is damaged, costs too much to read, or holds no tensors by name, such as a pickled network.
    """
    damaged = f"{path} is damaged or was not written by torch.save: write it again with `{RESAVE}`"
    foreign: Foreign = {}
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"  # as torch itself decides
        if zipped:
            require_stored(path, damaged)
        try:
            foreign = _require_cheap(path, zipped, file)
            with skipping(foreign), warnings.catch_warnings(action="ignore"):  # which torch gives for other protocols
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipped)
            return _weights_in(content, path)
        except CheckpointError:
            raise
        except StrangePickleError as error:
            raise CheckpointError(
                f"{path} is not read, since {error}: save the weights alone, as dense tensors on the CPU, "
                f"with `{RESAVE}`"
            ) from error
        except Exception as error:  # torch.load raises whatever its damaged input leads to, KeyError included
            refused = re.search(r"GLOBAL (\S+)", str(error))
            names = refused[1] if refused else listed(list(foreign), 3)
            raise CheckpointError(
                f"{path} holds pickled objects ({names:.300}), which could run any code, in a way that cannot be "
                f"skipped: save the weights alone with `{RESAVE}`"
                if names
                else damaged
            ) from error


def _require_cheap(path: Path, zipped: bool, file: IO[bytes]) -> Foreign:
    """The foreign classes in it. Raises StrangePickleError where one of its pickles would cost more than it may."""
    size = path.stat().st_size
    if zipped:  # by torch's own reader, since two readers may find two different entries of one name
        record = torch._C.PyTorchFileReader(os.fspath(path)).get_record("data.pkl")
        return require_cheap(BytesIO(record), size, _trusted())
    file.seek(0)
    found: Foreign = {}
    for _ in range(_LEGACY_PICKLES):
        found |= require_cheap(file, size, _trusted())
    return found


def _trusted() -> set[str]:
    """Names of what the user has allowed by `torch.serialization.add_safe_globals`."""
    allowed = torch.serialization.get_safe_globals()
    return {each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in allowed}


def _weights_in(content: Any, path: Path) -> Contents:
    """The class's own methods are called, not those that an object's attributes could hide."""
    if isinstance(content, Unread):
        raise CheckpointError(
            f"{path} holds a pickled object of {content.name:.200} instead of weights by name, and loading it could "
            f"run any code: where it was made, save the weights of the network alone with `{RESAVE}`"
        )
    if not isinstance(content, dict) or not dict.__len__(content):
        what = "nothing" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} holds {what} instead of weights by name: save it with `{RESAVE}`")
    found = contents(content)
    if not found.sets:
        strange = [_named(key) + _classes(value) for key, value in dict.items(content)]
        raise CheckpointError(
            f"{path} has entries that are not tensors ({listed(strange)}), and no weights by name: save them alone "
            f"with `{RESAVE}`"
        )
    for tensors in found.sets.values():
        require_plain_tensors(tensors, path)
    detached = {key: {name: Tensor.detach(tensor) for name, tensor in own.items()} for key, own in found.sets.items()}
    return Contents(detached, found.others)


def _named(key: object) -> str:
    return f"{key!s:.100}" if isinstance(key, str | int | float | None) else f"a {type(key).__name__}"


def _classes(value: object) -> str:
    """A remark on objects that were not read: a network that is pickled as a whole has hundreds."""
    names = unread(value)
    return f", a pickled object of {names[0]:.100}" if isinstance(value, Unread) and names else ""
