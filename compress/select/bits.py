"""Masks that are only kept, a bit for each entry, until they are read."""

from collections.abc import Iterator, Mapping, MutableMapping

import numpy as np
import torch
from torch import Size, Tensor

_Bits = tuple[Tensor, Size]
"""uint8 [ceil(n / 8)], the lowest bit of a byte first; and the shape of the mask."""


class Bits(MutableMapping[str, Tensor]):
    """Bool tensors by name. Each reading gives a new tensor, so that changes of one change nothing here.

    A mask that is sharded, or not on the CPU, is kept as it is.
    """

    def __init__(self, masks: Mapping[str, Tensor] | None = None) -> None:
        self._held: dict[str, _Bits | Tensor] = {}
        self.update(masks or {})

    def copy(self) -> "Bits":
        """A copy in the same memory."""
        found = Bits()
        found._held = dict(self._held)
        return found

    def __getitem__(self, name: str) -> Tensor:
        held = self._held[name]
        return held if isinstance(held, Tensor) else _unpacked(*held)

    def __setitem__(self, name: str, mask: Tensor) -> None:
        self._held[name] = (_packed(mask), mask.shape) if type(mask) is Tensor and mask.device.type == "cpu" else mask

    def __delitem__(self, name: str) -> None:
        del self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: object) -> bool:  # that of a Mapping would read the mask
        return name in self._held


def _packed(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.numpy().reshape(-1), bitorder="little"))


def _unpacked(bits: Tensor, shape: Size) -> Tensor:
    entries = np.unpackbits(bits.numpy(), count=shape.numel(), bitorder="little")
    return torch.from_numpy(entries).view(torch.bool).view(shape)
