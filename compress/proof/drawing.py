"""`inputs_like`: inputs that exercise a network, similar to the example, and always the same."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from compress.errors import CompressError
from compress.graph.tables import table_rows
from compress.graph.trace import Trace, trace
from compress.inputs import Inputs

_MOST_SAMPLES = 16
"""The largest size of a batch that is enlarged to look up every row of a table."""


@dataclass(frozen=True)
class Drawn(Inputs):
    """Values like those of an example.

    partner: the same number of other values; the difference between the outputs shows how much they vary.
    instead: the same number of samples of the example, for a network that runs on no other values.
    """

    partner: Inputs = field(default_factory=Inputs)
    instead: "Drawn | None" = None


def inputs_like(
    model: nn.Module, example: Inputs, sizes: Iterable[int], known: Trace | None = None
) -> Iterator[Inputs]:
    """For each of `sizes`, a call with this number of samples, on the example's device.

    Floating-point numbers are like the example's: its values in any order, or from the normal distribution if
    it is constant, and never negative if it is never negative. Integers that look up rows of a table are drawn from all
    rows; the last batch is enlarged, up to 16 samples, if it can then look up every row. All other integers, such as
    masks and lengths, are whole samples of the example: other values might be out of range.

    Args:
        known: `trace(model, example)`, if the caller has it; it shows which tables are looked up.
    """
    tables = _tables(model, example, known)
    *others, last = sizes
    for size in (*others, max(last, min(_MOST_SAMPLES, _to_cover(example, tables)))):
        yield drawn(example, size, tables)


def _to_cover(example: Inputs, tables: Sequence[int | None]) -> int:
    """The number of samples needed to look up each row of every table."""
    each = [
        (rows, tensor.numel() // example.rows) for rows, tensor in zip(tables, example.tensors, strict=False) if rows
    ]
    return max((math.ceil(rows / max(1, ids)) for rows, ids in each), default=0)


def drawn(example: Inputs, size: int, tables: Sequence[int | None] = ()) -> Drawn:
    """A call with `size` samples, or all if it is `whole`.

    Args:
        tables: the rows of the table that each tensor looks up.
    """
    chance = torch.Generator().manual_seed(size)
    kept = torch.randint(example.rows, (size,), generator=chance).sort().values  # sorted, as lengths may have to be
    if example.whole:
        kept = torch.arange(size := example.rows)
    first = _drawn(example, kept, chance, tables)
    # The partner has other samples, so that its outputs differ even where all inputs are masks or lengths.
    second = _drawn(example, (kept + 1) % example.rows, chance, tables, mixed=example.rows == 1)
    whole = torch.arange(size) % example.rows
    own, others = (_sampled(example, places) for places in (whole, (whole + 1) % example.rows))
    instead = Drawn(own.args, own.kwargs, own.batch_dim, own.whole, others)
    return Drawn(first.args, first.kwargs, first.batch_dim, first.whole, second, instead)


def paired(example: Inputs) -> Drawn:
    """The example itself, with a partner."""
    return Drawn(example.args, example.kwargs, example.batch_dim, example.whole, drawn(example, example.rows).partner)


def _drawn(
    example: Inputs, kept: Tensor, chance: Generator, tables: Sequence[int | None], *, mixed: bool = False
) -> Inputs:
    """mixed: whether the values of all tensors may come in any order."""
    rows = dict(zip(map(id, example.tensors), tables, strict=False))

    def values(tensor: Tensor) -> Tensor:
        samples = _samples(example, tensor, kept)
        if example.batch_dim_of(tensor) is None:
            return samples
        if table := rows.get(id(tensor)):
            return _ids(table, samples.shape, chance).to(samples)
        if mixed or tensor.dtype == torch.uint8 or (_continuous(tensor) and bool(tensor.isfinite().all())):
            return _values(tensor, samples.shape, chance)
        return samples

    return example.mapped(values)


def _tables(model: nn.Module, example: Inputs, known: Trace | None) -> tuple[int | None, ...]:
    if all(map(_continuous, example.tensors)):
        return ()
    with suppress(CompressError):  # a network that cannot be traced can still be exported
        return table_rows(known or trace(model, example))
    return ()


def _sampled(example: Inputs, kept: Tensor) -> Inputs:
    return example.mapped(lambda tensor: _samples(example, tensor, kept))


def _samples(example: Inputs, tensor: Tensor, kept: Tensor) -> Tensor:
    """Samples of the example, by number; a tensor without samples is passed on."""
    batch = example.batch_dim_of(tensor)
    return tensor if batch is None else tensor.index_select(batch, kept.to(tensor.device))


def _ids(rows: int, shape: torch.Size, chance: Generator) -> Tensor:
    """Each row of the table equally often, in any order."""
    times = math.ceil(shape.numel() / rows)
    ids = torch.cat([torch.randperm(rows, generator=chance) for _ in range(max(1, times))])
    return ids[: shape.numel()].view(shape)


def _continuous(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _values(tensor: Tensor, shape: torch.Size, chance: Generator) -> Tensor:
    """Values of the tensor in any order; normally distributed ones if it is constant."""
    own = tensor.flatten()
    if _continuous(tensor) and bool((own == own[0]).all()):
        values = torch.randn(shape, generator=chance, dtype=torch.promote_types(tensor.dtype, torch.float32))
        return (values.abs() if not tensor.is_complex() and bool(own[0] > 0) else values).to(tensor)
    return own[torch.randint(len(own), shape, generator=chance).to(own.device)]
