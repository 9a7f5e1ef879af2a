"""`Batches`: what training and evaluation iterate over."""

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

Subset = Literal["train", "test"]
"""The samples of a data set that a network learns from, or those that it is evaluated on."""


class Batches(Protocol):
    """The batches of one subset of a data set: they can be iterated over repeatedly; the last may be smaller."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (input, target), without its first `skip` batches.

        The order is random exactly if a (CPU) generator is given. The random numbers of skipped batches are drawn too,
        before this returns.
        """
        ...
