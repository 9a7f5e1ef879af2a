"""Dead nodes: nothing reads them, or they are the same for every input."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from compress.graph.coupling import Coupling, Member


def dead_nodes(found: Sequence[Coupling], tensors: Mapping[str, Tensor]) -> dict[Coupling, Tensor]:
    """Nodes (int64, ascending) that nothing reads, of every coupling that has any; never all of them.

    Nodes that only dead nodes read are dead too, so the search runs to a fixed point.
    """
    used = _Used(tensors)
    dead: dict[Coupling, Tensor] = {}
    searching: Iterable[Coupling] = found
    while searching:
        more = {}
        for coupling in found:
            nodes = _unread(coupling, used)
            if len(nodes) > len(dead.get(coupling, ())):
                more[coupling] = nodes
        for coupling, nodes in more.items():
            used.erase(coupling.members, nodes)
        dead |= more
        searching = more
    return dead


def all_zero(coupling: Coupling, members: Iterable[Member], tensors: Mapping[str, Tensor]) -> Tensor:
    """Bool [size]: the nodes whose entries are exactly zero in all of `members`."""
    return ~_used_by(coupling, members, _Used(tensors))


def any_along(marks: Tensor, dim: int) -> Tensor:
    """Bool [length of `dim`]: whether anything is marked there. `any` takes many times as long as the largest byte."""
    before, size, behind = math.prod(marks.shape[:dim]), marks.shape[dim], math.prod(marks.shape[dim + 1 :])
    if not marks.numel():
        return marks.new_zeros(size)
    return marks.view(torch.uint8).reshape(before, size, behind).amax(0).amax(1).view(torch.bool)


class _Used:
    """The positions of a dimension where a tensor has nonzero entries, while dead nodes are being erased."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._nonzero: dict[str, Tensor] = {}
        self._along: dict[tuple[str, int], Tensor] = {}
        self._tensors = tensors

    def along(self, name: str, dim: int) -> Tensor:
        if (name, dim) not in self._along:
            if name not in self._nonzero:
                self._nonzero[name] = self._tensors[name].detach().cpu() != 0
            self._along[name, dim] = any_along(self._nonzero[name], dim)
        return self._along[name, dim]

    def erase(self, members: Iterable[Member], nodes: Tensor) -> None:
        for member in members:
            self.along(member.tensor, member.dim)
            self._nonzero[member.tensor].index_fill_(member.dim, member.index(nodes), False)
            for dim in range(self._nonzero[member.tensor].ndim):
                self._along.pop((member.tensor, dim), None)


def _unread(coupling: Coupling, used: _Used) -> Tensor:
    matter = [member for member in coupling.members if member.role == "reads" or coupling.summed]
    dead = (~_used_by(coupling, matter, used)).nonzero().flatten()
    return dead[1:] if len(dead) == coupling.size else dead


def _used_by(coupling: Coupling, members: Iterable[Member], used: _Used) -> Tensor:
    alive = torch.zeros(coupling.size, dtype=torch.bool)
    for member in members:
        if member.role != "follows":
            alive |= member.per_node(used.along(member.tensor, member.dim).long()) > 0
    return alive
