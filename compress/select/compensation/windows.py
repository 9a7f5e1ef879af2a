"""Linear layers and convolutions as products with a matrix: their inputs as rows, their weights as its entries."""

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

    rows: (input, how many rows at most, what draws them) -> [groups, rows, entries]; drawn alike for inputs of one
        size. outputs: the same of an output, [groups, rows, outputs], at the same places. matrix: weight ->
        [groups, outputs, entries]. weight: the way back, to the weight's shape.
    """

    rows: Callable[[Tensor, int, torch.Generator], Tensor]
    outputs: Callable[[Tensor, int, torch.Generator], Tensor]
    matrix: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]


def linear(*, transposed: bool = False) -> Product:
    """weight [outputs, inputs], or [inputs, outputs] if it is transposed."""

    def rows(values: Tensor, most: int, chance: torch.Generator) -> Tensor:
        flat = values.reshape(-1, values.shape[-1])
        return flat[_drawn(len(flat), most, chance, flat.device)][None]

    def matrix(weight: Tensor) -> Tensor:
        return (weight.T if transposed else weight.reshape(-1, weight.shape[-1]))[None]

    def back(found: Tensor) -> Tensor:
        return found[0].T if transposed else found[0]

    return Product(rows, rows, matrix, back)


def convolution(weight: Tensor, stride: Ints, padding: Ints | str, dilation: Ints, groups: int) -> Product:
    """weight [groups * outputs, inputs, *window]: a row for each position of the output."""
    window = weight.shape[2:]
    stride, dilation = (_for_each(one, len(window)) for one in (stride, dilation))
    before_and_after = _padding(padding, window, dilation)

    def rows(values: Tensor, most: int, chance: torch.Generator) -> Tensor:
        padded = nn.functional.pad(_batched(values, len(window)), before_and_after)
        return _windows(padded, window, stride, dilation, groups, most, chance)

    return Product(
        rows,
        partial(_places, len(window), groups),
        lambda weight: weight.reshape(groups, len(weight) // groups, -1),
        lambda found: found.reshape(weight.shape),
    )


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
    mirrored = tuple(range(3, 3 + len(window)))

    def rows(values: Tensor, most: int, chance: torch.Generator) -> Tensor:
        values = _batched(values, len(window))
        extents = [(size - 1) * by + 1 for size, by in zip(values.shape[2:], stride, strict=True)]
        spread = values.new_zeros(*values.shape[:2], *extents)
        places: tuple[Any, ...] = (..., *(slice(None, None, by) for by in stride))
        spread[places] = values
        padded = nn.functional.pad(spread, sides)
        return _windows(padded, window, [1] * len(window), dilation, groups, most, chance)

    def matrix(weight: Tensor) -> Tensor:
        grouped = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
        return grouped.flip(mirrored).transpose(1, 2).flatten(2)

    def back(found: Tensor) -> Tensor:
        grouped = found.reshape(groups, weight.shape[1], len(weight) // groups, *window)
        return grouped.transpose(1, 2).flip(mirrored).reshape(weight.shape)

    return Product(rows, partial(_places, len(window), groups), matrix, back)


def _windows(
    padded: Tensor, window: Ints, stride: Ints, dilation: Ints, groups: int, most: int, chance: torch.Generator
) -> Tensor:
    """What the windows hold [groups, rows, inputs * window]; a row is a position of a sample."""
    rank = len(window)
    for place, (size, step, by) in enumerate(zip(window, stride, dilation, strict=True), start=2):
        padded = padded.unfold(place, by * (size - 1) + 1, step)[..., ::by]
    seen = padded.movedim(1, 1 + rank)  # [samples, *positions, channels, *window]
    places = seen.shape[: 1 + rank]
    rows = seen[torch.unravel_index(_drawn(places.numel(), most, chance, seen.device), places)]
    return rows.reshape(len(rows), groups, -1).transpose(0, 1)


def _places(rank: int, groups: int, outputs: Tensor, most: int, chance: torch.Generator) -> Tensor:
    """The outputs [groups, rows, outputs] of the rows that `_windows` draws."""
    flat = _batched(outputs, rank).movedim(1, -1).flatten(0, -2)
    rows = flat[_drawn(len(flat), most, chance, flat.device)]
    return rows.reshape(len(rows), groups, -1).transpose(0, 1)


def _drawn(count: int, most: int, chance: torch.Generator, device: torch.device) -> Tensor:
    """Numbers of the rows to look at: all, or as many as allowed."""
    if count <= most:
        return torch.arange(count, device=device)
    return torch.randint(count, (most,), generator=chance).to(device)


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
