"""Recognizes TorchScript archives, which look like a damaged file to every other reader."""

import zipfile
from pathlib import Path

from compress.errors import CheckpointError

_MOST_ENTRIES = 100_000


def require_no_torchscript(path: Path) -> None:
    """Raise CheckpointError if the file is what torch.jit.save writes; it may have any suffix.

    Raises OSError if it cannot be read.
    """
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which has code of its own and no Python module to prune. Save its "
            f'weights with `torch.save(torch.jit.load("{path.name}").state_dict(), "model.pt")`, and use them with '
            "the network's Python class"
        )


def _is_torchscript(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
        try:
            names = zipfile.ZipFile(file).namelist()[:_MOST_ENTRIES]
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):  # the error of its reader says more
            return False
    inner = [name.partition("/")[2] for name in names]
    return "constants.pkl" in inner and any(name.startswith("code/") for name in inner)
