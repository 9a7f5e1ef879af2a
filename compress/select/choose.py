"""The choice: exactly k entries of the lowest score, ties broken by position, whatever the dtype."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from compress.errors import InputError, TargetError

Scope = Literal["global", "layer", "erk"]

COLLAPSED = 0.002
"""A layer that keeps a smaller share of its weights than this is reported as collapsed."""

_CHUNK = 1 << 20
_DIGIT = 16


class LayerCollapseWarning(UserWarning):
    """A layer would lose all, or nearly all, of its weights."""


def choose(
    scores: Sequence[Tensor],
    sparsity: float,
    *,
    scope: Scope = "global",
    min_keep: int | float | None = None,
    names: Sequence[str] | None = None,
) -> list[Tensor]:
    """Keep all but the lowest scores.

    Args:
        scores: one tensor per parameter, any float dtype, larger = keep; infinities are allowed.
        sparsity: the fraction that goes, in [0, 1): exactly round(sparsity * n) entries, of all entries together
            (`scope="global"`, or "erk", where `erk_counts` says how many each tensor keeps) or of each tensor
            ("layer"). Equal scores go in order of position.
        min_keep: what every tensor keeps at least: a number of entries, or a share in (0, 1).
        names: for messages.

    Returns:
        Bool tensors of the scores' shapes, True = keep.

    Raises:
        InputError: sparsity or min_keep out of range, or both cannot hold together.
        TargetError: a score is NaN.
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity {sparsity}: it is the fraction that goes and must lie in [0, 1)")
    names = names or [f"tensor {index}" for index in range(len(scores))]
    for name, score in zip(names, scores, strict=True):
        if score.isnan().any():
            raise TargetError(f"the scores of {name} hold NaN: nothing can be ranked by them")
    floors = [_floor(score.numel(), min_keep) for score in scores]
    if scope == "layer":
        return [
            _choose_together([score], sparsity, [floor], name)[0]
            for score, floor, name in zip(scores, floors, names, strict=True)
        ]
    if scope == "erk":
        return _choose_by_erk(scores, sparsity, floors)
    return _choose_together(scores, sparsity, floors, "all targets")


def erk_counts(shapes: Sequence[Sequence[int]], total: int, least: Sequence[int], most: Sequence[int]) -> list[int]:
    """How many entries each tensor keeps: Erdos-Renyi-Kernel.

    Evci et al., "Rigging the lottery: making all tickets winners", 2020. The density of a tensor is proportional to
    (fan-in + fan-out + kernel's sides) / (their product), hence its count to the sum of its shape: small tensors stay
    denser than large ones. What would exceed a tensor is shared out among the others.

    Args:
        total: what all keep together, between sum(least) and sum(most).

    Returns:
        Counts within their bounds that add up to `total` exactly: rounded by largest remainder, ties by position.
    """
    shares = [max(1, sum(shape)) for shape in shapes]
    wanted: list[float] = [0.0] * len(shapes)
    low, high = 0.0, float(max([1, *most]))
    for _ in range(128):  # to the last bit of the factor of proportionality
        factor = (low + high) / 2
        bounded = zip(shares, least, most, strict=True)
        wanted = [min(max(factor * share, fewest), top) for share, fewest, top in bounded]
        low, high = (factor, high) if sum(wanted) < total else (low, factor)
    counts = [int(want) for want in wanted]
    by_remainder = sorted(range(len(counts)), key=lambda index: counts[index] - wanted[index])
    open_ones = [index for index in by_remainder if counts[index] < most[index]]
    for index in open_ones[: total - sum(counts)]:
        counts[index] += 1
    return counts


def collapsed(keep: Sequence[Tensor], names: Sequence[str], share: float = COLLAPSED) -> list[str]:
    """A sentence for each tensor of which less than `share` is kept."""
    return [
        f"{name} would keep {int(mask.sum())} of its {mask.numel()} weights: a collapsed layer passes nothing on; "
        "min_keep holds some of them"
        for name, mask in zip(names, keep, strict=True)
        if mask.sum() < share * mask.numel()
    ]


def warn_of_collapse(keep: Sequence[Tensor], names: Sequence[str]) -> None:
    for sentence in collapsed(keep, names):
        warnings.warn(sentence, LayerCollapseWarning, stacklevel=3)


def _choose_together(scores: Sequence[Tensor], sparsity: float, floors: Sequence[int], what: str) -> list[Tensor]:
    count = _count(scores, sparsity, floors, what)
    return [~mask for mask in lowest(_protected(scores, floors), count)]


def _choose_by_erk(scores: Sequence[Tensor], sparsity: float, floors: Sequence[int]) -> list[Tensor]:
    sizes = [score.numel() for score in scores]
    kept = sum(sizes) - _count(scores, sparsity, floors, "all targets")
    # What an earlier choice took, score -inf, is no place to keep anything while there are others.
    alive = [max(int((score > -torch.inf).sum()), floor) for score, floor in zip(scores, floors, strict=True)]
    most = alive if sum(alive) >= kept else sizes
    counts = erk_counts([score.shape for score in scores], kept, floors, most)
    return [~lowest([score], score.numel() - count)[0] for score, count in zip(scores, counts, strict=True)]


def _count(scores: Sequence[Tensor], sparsity: float, floors: Sequence[int], what: str) -> int:
    """How many entries go."""
    total = sum(score.numel() for score in scores)
    count = round(sparsity * total)
    if count > total - sum(floors):
        raise InputError(
            f"sparsity {sparsity} takes {count} of {total} entries of {what}, but min_keep holds {sum(floors)} of "
            "them: lower one of the two"
        )
    return count


def _floor(size: int, min_keep: int | float | None) -> int:
    if min_keep is None:
        return 0
    if isinstance(min_keep, int) and min_keep >= 1:
        return min(min_keep, size)
    if 0 < min_keep < 1:
        return max(1, round(min_keep * size))
    raise InputError(f"min_keep {min_keep}: give a number of entries (1, 2, ...) or a share between 0 and 1")


def _protected(scores: Sequence[Tensor], floors: Sequence[int]) -> list[Tensor]:
    """The scores with the `floor` best of each tensor out of reach."""
    result = []
    for score, floor in zip(scores, floors, strict=True):
        if floor:
            (spare,) = lowest([score], score.numel() - floor)
            score = torch.where(spare, score, torch.inf)
        result.append(score)
    return result


def lowest(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Bool tensors that mark exactly the `count` lowest of all scores; among equals, the first ones.

    Radix selection on the bits: the threshold's digits are fixed one after the other from histograms, so memory
    beyond the answer stays at a few chunks, and time is linear in the number of scores.
    """
    if count == 0:
        return [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    bits = 64 if any(score.dtype == torch.float64 for score in scores) else 32
    threshold, ties = _threshold(scores, count, bits)
    marks = []
    for score in scores:
        mark = torch.empty(score.numel(), dtype=torch.bool, device=score.device)
        for start, keys in _chunks(score, bits):
            chunk = mark[start : start + len(keys)]
            torch.lt(keys, threshold, out=chunk)
            if ties:
                equal = (keys == threshold).nonzero().flatten()[:ties]
                chunk[equal] = True
                ties -= len(equal)
        marks.append(mark.view(score.shape))
    return marks


def _threshold(scores: Sequence[Tensor], count: int, bits: int) -> tuple[int, int]:
    """(key of the count-th lowest score, how many scores equal to it belong to the lowest)."""
    prefix, left, half = 0, count, 1 << (_DIGIT - 1)
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        first = shift + _DIGIT == bits
        histogram = torch.zeros(1 << _DIGIT, dtype=torch.int64)
        for score in scores:
            for _, keys in _chunks(score, bits):
                high = keys >> shift
                # The first digit carries the sign; a later one counts only where all digits before it agree.
                digit = high + half if first else high[(high >> _DIGIT) == prefix] & ((1 << _DIGIT) - 1)
                histogram += torch.bincount(digit, minlength=1 << _DIGIT).cpu()
        upto = histogram.cumsum(0)
        value = int(torch.searchsorted(upto, left))
        left -= int(upto[value] - histogram[value])
        prefix = value - half if first else (prefix << _DIGIT) | value
    return prefix, left


def _chunks(score: Tensor, bits: int) -> Iterator[tuple[int, Tensor]]:
    """(start, integer keys in the order of the scores): a float's bits, with the negative half turned around."""
    kind, integer = (torch.float64, torch.int64) if bits == 64 else (torch.float32, torch.int32)
    flat = score.detach().reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        key = (flat[start : start + _CHUNK].to(kind) + 0.0).view(integer)  # + 0.0 makes one zero of the two
        yield start, key ^ ((key >> (bits - 1)) & ((1 << (bits - 1)) - 1))
