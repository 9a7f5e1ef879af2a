"""Linear layers and convolutions as products with a matrix: their inputs as rows, their weights as its entries."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Ints = Sequence[int]


@dataclass(frozen=True)
class Product:
    """A layer as `rows(x) @ matrix(weight).T`, in each of its groups.

    Entries of a row are those of the window's places one after another, each with all inputs of the group.

    rows: (input, how many rows at most, what draws them) -> [groups, rows, entries]. outputs: the same of an output,
        [groups, rows, outputs], at the same places. matrix: weight -> [groups, outputs, entries]. weight: the way back,
        to the weight's shape. inputs: how many each group has. dim: where they are in an input.
    """

    rows: Callable[[Tensor, int, torch.Generator], Tensor]
    outputs: Callable[[Tensor, int, torch.Generator], Tensor]
    matrix: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]
    inputs: int
    dim: int

    def of_used(self, keep: Tensor) -> "Product":
        """The product of the inputs that a kept entry reads, where there is one group: the others take no part.

        Args:
            keep: bool, of the weight's shape.
        """
        entries = self.matrix(keep).any(1)  # [groups, entries]
        used = entries.reshape(-1, self.inputs).any(0).nonzero().flatten()
        if len(entries) > 1 or len(used) == self.inputs:
            return self

        def rows(values: Tensor, most: int, chance: torch.Generator) -> Tensor:
            return self.rows(values.index_select(self.dim, used.to(values.device)), most, chance)

        def matrix(weight: Tensor) -> Tensor:
            found = self.matrix(weight)
            return found.reshape(*found.shape[:2], -1, self.inputs)[..., used].flatten(2)

        def back(found: Tensor) -> Tensor:
            found = found.reshape(*found.shape[:2], -1, len(used))
            whole = found.new_zeros(*found.shape[:3], self.inputs)
            return self.weight(whole.index_copy(3, used.to(found.device), found).flatten(2))

        return Product(rows, self.outputs, matrix, back, len(used), self.dim)


def linear(weight: Tensor, *, transposed: bool = False) -> Product:
    """weight [outputs, inputs], or [inputs, outputs] if it is transposed."""

    def rows(values: Tensor, most: int, chance: torch.Generator) -> Tensor:
        flat = values.reshape(-1, values.shape[-1])
        return flat[_drawn(len(flat), most, chance, flat.device)][None]

    def matrix(weight: Tensor) -> Tensor:
        return (weight.T if transposed else weight.reshape(-1, weight.shape[-1]))[None]

    def back(found: Tensor) -> Tensor:
        return found[0].T if transposed else found[0]

    return Product(rows, rows, matrix, back, weight.shape[0 if transposed else -1], -1)


def convolution(weight: Tensor, stride: Ints, padding: Ints | str, dilation: Ints, groups: int) -> Product:
    """weight [groups * outputs, inputs, *window]: a row for each position of the output."""
    window = weight.shape[2:]
    stride, dilation = (_for_each(one, len(window)) for one in (stride, dilation))
    before_and_after = _padding(padding, window, dilation)

    def rows(values: Tensor, most: int, chance: torch.Generator) -> Tensor:
        values = _batched(values, len(window))
        return _windows(values, before_and_after, window, stride, dilation, groups, most, chance)

    def matrix(weight: Tensor) -> Tensor:
        return weight.reshape(groups, -1, weight.shape[1], math.prod(window)).transpose(2, 3).flatten(2)

    def back(found: Tensor) -> Tensor:
        return found.reshape(*found.shape[:2], -1, weight.shape[1]).transpose(2, 3).reshape(weight.shape)

    outputs = partial(_places, len(window), groups)
    return Product(rows, outputs, matrix, back, weight.shape[1], -1 - len(window))


def transposed_convolution(
    weight: Tensor, stride: Ints, padding: Ints, output_padding: Ints, groups: int, dilation: Ints
) -> Product:
    """weight [groups * inputs, outputs, *window]: the convolution with mirrored windows of the input spread out."""
    window = weight.shape[2:]
    stride, padding, output_padding, dilation = (
        _for_each(one, len(window)) for one in (stride, padding, output_padding, dilation)
    )
    sides: list[int] = []
    for size, by, pad, more in reversed(list(zip(window, dilation, padding, output_padding, strict=True))):
        sides += [by * (size - 1) - pad, by * (size - 1) - pad + more]
    mirrored, inputs = tuple(range(3, 3 + len(window))), len(weight) // groups

    def rows(values: Tensor, most: int, chance: torch.Generator) -> Tensor:
        values = _batched(values, len(window))
        extents = [(size - 1) * by + 1 for size, by in zip(values.shape[2:], stride, strict=True)]
        spread = values.new_zeros(*values.shape[:2], *extents)
        places: tuple[Any, ...] = (..., *(slice(None, None, by) for by in stride))
        spread[places] = values
        return _windows(spread, sides, window, [1] * len(window), dilation, groups, most, chance)

    def matrix(weight: Tensor) -> Tensor:
        grouped = weight.reshape(groups, inputs, *weight.shape[1:])
        return grouped.flip(mirrored).transpose(1, 2).flatten(3).transpose(2, 3).flatten(2)

    def back(found: Tensor) -> Tensor:
        grouped = found.reshape(groups, weight.shape[1], -1, inputs).transpose(2, 3)
        return grouped.reshape(groups, -1, inputs, *window).transpose(1, 2).flip(mirrored).reshape(weight.shape)

    outputs = partial(_places, len(window), groups)
    return Product(rows, outputs, matrix, back, inputs, -1 - len(window))


def _windows(
    values: Tensor,
    sides: Ints,
    window: Ints,
    stride: Ints,
    dilation: Ints,
    groups: int,
    most: int,
    chance: torch.Generator,
) -> Tensor:
    """What the windows hold [groups, rows, window * inputs]; a row is a position of a sample."""
    seen = values.movedim(1, -1)  # [samples, *extents, channels]
    if any(sides):
        seen = nn.functional.pad(seen, [0, 0, *sides])
    if math.prod(window) > 1:
        seen = seen.contiguous()  # each place of a window is copied with all its channels
    extents = seen.shape[1:-1]
    each = [math.prod(extents[place + 1 :]) for place in range(len(extents))]
    counts = [
        (extent - by * (size - 1) - 1) // step + 1
        for extent, size, step, by in zip(extents, window, stride, dilation, strict=True)
    ]
    drawn = _drawn(len(seen) * math.prod(counts), most, chance, seen.device)
    sample, *starts = torch.unravel_index(drawn, (len(seen), *counts))
    start = sum((one * step * far for one, step, far in zip(starts, stride, each, strict=True)), start=0 * sample)
    inside = torch.unravel_index(torch.arange(math.prod(window), device=seen.device), tuple(window))
    offset = sum((one * by * far for one, by, far in zip(inside, dilation, each, strict=True)), start=0 * inside[0])
    rows = seen.flatten(1, -2)[sample[:, None], start[:, None] + offset]  # [rows, window, channels]
    return rows.reshape(*rows.shape[:2], groups, -1).permute(2, 0, 1, 3).flatten(2)


def _places(rank: int, groups: int, outputs: Tensor, most: int, chance: torch.Generator) -> Tensor:
    """The outputs [groups, rows, outputs] of the rows that `_windows` draws."""
    each = _batched(outputs, rank).flatten(2)
    drawn = _drawn(len(each) * each.shape[2], most, chance, each.device)
    rows = each.transpose(1, 2)[torch.unravel_index(drawn, (len(each), each.shape[2]))]
    return rows.reshape(len(rows), groups, -1).transpose(0, 1)


def _drawn(count: int, most: int, chance: torch.Generator, device: torch.device) -> Tensor:
    """Numbers of the rows to look at, in order: all, or as many as allowed, one of each of as many equal parts."""
    if count <= most:
        return torch.arange(count, device=device)
    parts = torch.arange(most, dtype=torch.float64) + torch.rand(most, dtype=torch.float64, generator=chance)
    return (parts * (count / most)).long().clamp_max(count - 1).to(device)


def _batched(values: Tensor, rank: int) -> Tensor:
    return values if values.ndim == rank + 2 else values[None]


def _padding(padding: Ints | str, window: Ints, dilation: Ints) -> list[int]:
    """How many zeros lie before and after, as `pad` takes them: from the last dimension to the first."""
    found: list[int] = []
    each: Sequence[Any] = [padding] * len(window) if isinstance(padding, str) else _for_each(padding, len(window))
    for size, by, pad in reversed(list(zip(window, dilation, each, strict=True))):
        whole = {"same": by * (size - 1), "valid": 0}[pad] if isinstance(pad, str) else 2 * pad
        found += [whole // 2, whole - whole // 2]
    return found


def _for_each(value: int | Ints, rank: int) -> Ints:
    several = [value] if isinstance(value, int) else list(value)
    return several * (rank // len(several))
