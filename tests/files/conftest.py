import random
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.errors import CheckpointError
from compress.files.checkpoint import read_weights


@pytest.fixture
def times_refused() -> Callable[[Path, int], int]:
    """How many of so many copies of a file are refused that are cut short or have bytes changed anywhere.

    In the others tensors are read; any other error is raised.
    """

    def count(path: Path, copies: int) -> int:
        chance, whole, refused = random.Random(0), path.read_bytes(), 0
        for _ in range(copies):
            found = bytearray(whole)
            for _ in range(chance.randint(1, 3)):
                found[chance.randrange(len(found))] = chance.randrange(256)
            path.write_bytes(found[: chance.randrange(len(found))] if chance.random() < 0.3 else found)
            try:
                read_weights(path)
            except CheckpointError:
                refused += 1
        return refused

    return count
