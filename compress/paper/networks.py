"""Trained dense networks as files beside the cells. A file is the valid network of its key, or it counts as absent."""

import hashlib
from pathlib import Path

from torch import Tensor, nn

from compress import __version__
from compress.errors import CheckpointError
from compress.files import marked
from compress.files.bounded import strange
from compress.files.checkpoint import load_weights, read_weights, write_weights


def load_trained(model: nn.Module, path: Path, key: str) -> bool:
    """Load the weights at `path` into `model`, if `keep_trained` wrote them for this key."""
    try:
        if strange(path, links=False) or not path.exists():
            return False
        weights = read_weights(path)
        if weights.metadata != _note(weights.only(str(path)), key):
            return False
        load_weights(model, weights, str(path))
    except (OSError, CheckpointError):
        return False
    return True


def keep_trained(model: nn.Module, path: Path, key: str) -> None:
    """Write the weights of `model`; anything but a file in their place, such as a link, is left alone.

    Raises:
        OutputError: they cannot be written.
    """
    marked.cells(path.parent)
    if not strange(path, links=False):
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        write_weights(tensors, path, _note(tensors, key))


def _note(tensors: dict[str, Tensor], key: str) -> dict[str, str]:
    """The metadata of the file: the network's key, the version that trained it, and the checksum of its tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().data)
    return {"key": key, "softprune": __version__, "sha256": digest.hexdigest()}
