"""What training and evaluation iterate over, whatever it comes from."""

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

Subset = Literal["train", "test"]
"""The samples of a data set that a network learns from, or those that it is judged by."""


class Batches(Protocol):
    """The batches of one subset of a data set: as often as wanted, the last one as small as it falls."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (input, target), without its first `skip` batches.

        In a random order exactly if a (CPU) generator is given, which is drawn from alike whatever is skipped. What is
        skipped has had its part of chance when this returns.
        """
        ...
