"""The trained network at the start of a sweep."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from compress.errors import CheckpointError
from compress.files.places import digest, place


@dataclass(frozen=True)
class Trained:
    """A file of weights of the dense network, and its sha256, or that of its shards, as `places.digest` makes it."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file at `path`. Raises CheckpointError if it is not a file or cannot be read."""
        return cls(path, digest(place(path)))

    def require_unchanged(self) -> None:
        """Raises CheckpointError if the file has changed, since its figures would be recorded under the old hash."""
        if Trained.of(self.path) != self:
            raise CheckpointError(f"{self.path} has changed since the sweep was started: start it again")
