"""The trained network that a sweep starts from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from compress.errors import CheckpointError


@dataclass(frozen=True)
class Trained:
    """A file of weights of the dense network, and the sha256 of its bytes."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises CheckpointError: the file cannot be read."""
        try:
            with path.open("rb") as stream:
                return cls(path, hashlib.file_digest(stream, "sha256").hexdigest())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); name a file of weights") from None
