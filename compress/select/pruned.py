"""`Pruned`: what has been pruned so far, which later pruners of the same network keep pruned and count."""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import astuple, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from compress.graph.coupling import Coupling, Member
from compress.select.bits import Bits
from compress.shards import mapped

Key = TypeVar("Key")


@dataclass
class Pruned:
    """keep: by parameter, its qualified name -> bool of its shape. keep_nodes: by coupling -> bool [nodes]."""

    keep: MutableMapping[str, Tensor] = field(default_factory=Bits)
    keep_nodes: dict[Coupling, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keep = self.keep.copy() if isinstance(self.keep, Bits) else Bits(self.keep)

    def copy(self) -> "Pruned":
        return Pruned(self.keep, dict(self.keep_nodes))

    def state_dict(self) -> dict[str, Any]:
        return {"keep": dict(self.keep), "keep_nodes": packed(self.keep_nodes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.keep, self.keep_nodes = Bits(state["keep"]), unpacked(state["keep_nodes"])


def with_earlier(masks: Mapping[Key, Tensor], earlier: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """The masks, with everything pruned that an earlier one pruned."""
    both = torch.logical_and
    return {name: mapped(both, mask, earlier[name]) if name in earlier else mask for name, mask in masks.items()}


def packed(keep: Mapping[Coupling, Tensor]) -> list[Any]:
    """The masks of couplings as plain values and tensors."""
    return [
        (coupling.name, coupling.size, coupling.summed, [astuple(member) for member in coupling.members], mask)
        for coupling, mask in keep.items()
    ]


def unpacked(saved: Iterable[Any]) -> dict[Coupling, Tensor]:
    """Couplings are equal by name, size and members: each of these finds its equal in the network."""
    return {
        Coupling(name, size, tuple(Member(*member) for member in members), summed): mask
        for name, size, summed, members, mask in saved
    }
