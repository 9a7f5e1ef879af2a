"""Tensors that are spread over processes (DTensor), as `fully_shard` and tensor parallelism make them.

Each process holds a part of such a tensor. What is computed entry by entry is computed on the parts, and counts are
added up over the processes by a `Reducer`; alone, it changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Placement


def is_sharded(tensor: object) -> bool:
    """Whether it is a DTensor, whose class is slow to import."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory; all of a tensor that is not sharded."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        return _dtensor(tensor).to_local()


def like(part: Tensor, whole: Tensor) -> Tensor:
    """A tensor with the shape and placement of `whole`, of which this process holds `part`."""
    if not is_sharded(whole):
        return part
    from torch.distributed.tensor import DTensor

    spread = _dtensor(whole)
    with torch.no_grad():
        return DTensor.from_local(
            part,
            spread.device_mesh,
            spread.placements,
            run_check=False,
            shape=whole.shape,
            stride=tuple(math.prod(whole.shape[axis + 1 :]) for axis in range(whole.dim())),
        )


def mapped(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """function(*tensors), entry by entry, with the placement of the first one, which all have."""
    return like(function(*map(local, tensors)), tensors[0])


def has_placement_of(tensor: Tensor, other: Tensor) -> bool:
    """Whether both are sharded in the same way, over the same processes; or neither."""
    if not (is_sharded(tensor) and is_sharded(other)):
        return is_sharded(tensor) == is_sharded(other)
    one, two = _dtensor(tensor), _dtensor(other)
    return one.device_mesh == two.device_mesh and one.placements == two.placements


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A sharded tensor with the placement of another one; what differs is sent."""
    return (
        tensor
        if has_placement_of(tensor, other)
        else _dtensor(tensor).redistribute(placements=_dtensor(other).placements)
    )


def gathered(tensor: Tensor) -> Tensor:
    """The whole tensor, on every process: it sends all of its entries."""
    return _dtensor(tensor).full_tensor() if is_sharded(tensor) else tensor


def spread(whole: Tensor, tensor: Tensor) -> Tensor:
    """A plain tensor, which all processes have, with the placement of `tensor`; nothing is sent."""
    if not is_sharded(tensor) or is_sharded(whole):
        return whole
    return like(Part.of(tensor).taken_from(whole).to(local(tensor).device), tensor)


@dataclass(frozen=True)
class Part:
    """Which entries of a tensor this process holds.

    indices: for each dimension those that are here, int64, in the order of the part.
    """

    shape: tuple[int, ...]
    indices: tuple[Tensor, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Part:
        """The part of a tensor, sharded or not."""
        indices = [torch.arange(size) for size in tensor.shape]
        if is_sharded(tensor):
            mesh = _dtensor(tensor).device_mesh
            coordinate = mesh.get_coordinate() or [0] * mesh.ndim
            for placement, count, number in zip(_dtensor(tensor).placements, mesh.shape, coordinate, strict=True):
                if (dim := getattr(placement, "dim", None)) is not None:
                    indices[dim] = _dealt(indices[dim], placement, count, number)
        return cls(tuple(tensor.shape), tuple(indices))

    @property
    def local_shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.indices))

    @property
    def is_sorted(self) -> bool:
        """Whether entries stand in the order that they have in the whole tensor."""
        return all(bool((index.diff() > 0).all()) for index in self.indices)

    def has_all_along(self, dim: int) -> bool:
        return len(self.indices[dim]) in (0, self.shape[dim])

    def taken_from(self, whole: Tensor) -> Tensor:
        """A copy of these entries of a plain tensor of the whole shape."""
        for dim, index in enumerate(self.indices):
            if len(index) < self.shape[dim]:
                whole = whole.index_select(dim, index.to(whole.device))
        return whole.clone(memory_format=torch.contiguous_format)

    def positions(self, flat: Tensor) -> Tensor:
        """Positions in the whole flat tensor, int64, of entries by their positions in the flat part."""
        found, rest, stride = torch.zeros_like(flat), flat, 1
        for size, index in zip(reversed(self.shape), reversed(self.indices), strict=True):
            found += index.to(flat.device)[rest % len(index)] * stride
            rest, stride = rest // len(index), stride * size
        return found


def _dealt(index: Tensor, placement: Placement, count: int, number: int) -> Tensor:
    """What the process `number` of `count` gets of these indices.

    `_StridedShard`, where one dimension is split for two reasons (FSDP with tensor parallelism), splits each of
    `split_factor` chunks.
    """
    dealt = [chunk.chunk(count) for chunk in index.chunk(getattr(placement, "split_factor", 1))]
    return torch.cat([index[:0], *(chunks[number] for chunks in dealt if number < len(chunks))])


@dataclass(frozen=True)
class Reducer:
    """Adds up what the processes have counted.

    device: where the tensors are that are sent; None alone, where nothing is.
    """

    device: torch.device | None = None

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Reducer:
        """That of all processes if one of the tensors is sharded."""
        return next((cls(local(tensor).device) for tensor in tensors if is_sharded(tensor)), ALONE)

    @property
    def alone(self) -> bool:
        return self.device is None

    def counts(self, tensor: Tensor) -> bool:
        """Whether this process counts its entries of the tensor: of those that several hold, the first one does."""
        if self.alone:
            return True
        import torch.distributed as dist

        if not is_sharded(tensor):
            return dist.get_rank() == 0
        mesh = _dtensor(tensor).device_mesh
        coordinate = mesh.get_coordinate()
        if coordinate is None or not bool((mesh.mesh == 0).any()):  # as where each of several groups has all of it
            return False
        placed = zip(_dtensor(tensor).placements, coordinate, strict=True)
        return all(number == 0 for placement, number in placed if placement.is_replicate())

    def add(self, counts: Tensor) -> Tensor:
        """The sum over all processes, where the argument is."""
        return self._reduced(counts, "SUM")

    def largest(self, values: Tensor) -> Tensor:
        return self._reduced(values, "MAX")

    def differing(self, text: str) -> int | None:
        """The first process whose text is not that of process 0; None where all have the same."""
        if self.alone:
            return None
        import torch.distributed as dist

        found: list[bytes] = [b""] * dist.get_world_size()
        dist.all_gather_object(found, hashlib.sha256(text.encode()).digest())
        return next((rank for rank, digest in enumerate(found) if digest != found[0]), None)

    def _reduced(self, values: Tensor, how: str) -> Tensor:
        if self.alone:
            return values
        import torch.distributed as dist

        sent = values.to(self.device, copy=True)
        dist.all_reduce(sent, getattr(dist.ReduceOp, how))
        return sent.to(values.device)


ALONE = Reducer()


def true_in(masks: Sequence[Tensor]) -> list[int]:
    """How many entries are True in each of these masks, in all processes together."""
    reducer = Reducer.of(masks)
    # Not mask.sum(), which copies the mask to int64 first, 8 bytes an entry.
    here = [int(local(mask).count_nonzero()) if reducer.counts(mask) else 0 for mask in masks]
    return here if reducer.alone else [int(count) for count in reducer.add(torch.tensor(here, dtype=torch.int64))]


def fsdp_modules(model: nn.Module) -> list[Any]:
    """Its modules that `torch.distributed.fsdp.fully_shard` has sharded, each with the parameters in it."""
    return [module for module in model.modules() if is_fsdp(type(module))]


def reshard(modules: Sequence[Any]) -> None:
    """Put the parts of parameters in place again where whole ones are left, as after an evaluation.

    Args:
        modules: those of `fsdp_modules`.
    """
    for module in modules:
        module.reshard()


def is_fsdp(kind: type) -> bool:
    return any(base.__name__ == "FSDPModule" for base in kind.__mro__)


def class_before_sharding(module: nn.Module) -> type:
    """Its class; where `fully_shard` has put one of its own in front, the one behind it."""
    kinds = type(module).__mro__
    return next((kinds[place + 1] for place, kind in enumerate(kinds) if kind.__name__ == "FSDPModule"), kinds[0])


def _dtensor(tensor: Tensor) -> DTensor:
    return tensor  # type: ignore[return-value]
