"""Norms of the entries that belong to each node, without copies of the tensors."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.graph.coupling import Member
from compress.select.members import values
from compress.select.scores import piece_size


def node_norms(model: nn.Module, members: Sequence[Member]) -> Tensor:
    """Euclidean norm of each node's entries in all these tensors together: [nodes], in float32 at least."""
    squares = [squares_of(member, values(model, member)) for member in members]
    return functools.reduce(torch.add, squares).sqrt()


def squares_of(member: Member, tensor: Tensor) -> Tensor:
    """The sum of the squares of each node's entries in one tensor: [nodes], in float32 at least.

    Equal entries at equal places have the same sum, whichever node they belong to: the order of the additions is the
    same for every node.
    """
    kind = torch.promote_types(tensor.dtype, torch.float32)
    along = 0 if member.dim else 1  # axis 1 of a split first dimension has the nodes
    entries = member.split(tensor)
    at_once = max(1, piece_size(tensor.device) * entries.shape[along] // max(1, entries.numel()))
    first, *others = torch.split(entries, at_once, dim=along)
    room = torch.empty(first.shape, dtype=kind, device=first.device)  # of one piece, so that it remains in the cache
    sums = []
    for piece in (first, *others):
        squares = room.narrow(along, 0, piece.shape[along]).copy_(piece).square_()
        sums.append(_summed(squares, member.dim + 1))
    return functools.reduce(torch.add, sums) if member.dim else torch.cat(sums)


def _summed(numbers: Tensor, axis: int) -> Tensor:
    """The sum over all other axes, [length of `axis`]. `numbers` are overwritten.

    Halves are added to each other, so that it reads rows as they are in memory, and rounds less than a running sum.
    """
    before, size = math.prod(numbers.shape[:axis]), numbers.shape[axis]
    left = numbers.reshape(before, size, math.prod(numbers.shape[axis + 1 :]))
    while len(left) > 1:
        half = len(left) // 2
        rest = left[2 * half :]
        left = left[:half].add_(left[half : 2 * half])
        left[: len(rest)].add_(rest)
    return left.sum((0, 2))
