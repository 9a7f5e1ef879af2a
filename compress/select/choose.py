"""The choice of exactly k entries with the lowest scores, ties broken by position, for any dtype.

It takes linear time, in passes over the scores: beside the result, a few pieces and a histogram are in memory. Scores
that are sharded over processes are counted where they are, and the processes send each other nothing but the
histograms: half a megabyte for each 16 bits of a score, however many scores there are.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from compress.errors import InputError, TargetError
from compress.options import check, require_word
from compress.run_warnings import RunWarning
from compress.select.amount import WeightScope
from compress.select.floors import floor_of
from compress.select.scores import Scores
from compress.shards import Part, Reducer, like, local, true_in
from compress.wording import count_of

COLLAPSED = 0.002
"""A layer that keeps a smaller share of its weights than this is reported as collapsed."""

_DIGIT = 16
_HALF = 1 << (_DIGIT - 1)
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class LayerCollapseWarning(RunWarning):
    """A layer would lose all, or nearly all, of its weights."""

    kind = "layer_loss"


def choose(
    scores: Sequence[Tensor | Scores],
    sparsity: float,
    *,
    scope: WeightScope = "global",
    min_keep: int | float | None = None,
    names: Sequence[str] | None = None,
) -> list[Tensor]:
    """Keep all but the lowest scores.

    Args:
        scores: one tensor per parameter, any float dtype, larger = keep; infinities are allowed. `Scores` are computed
            as they are needed, several times.
        sparsity: the fraction to prune, in [0, 1): exactly round(sparsity * n) entries, of all entries together
            (`scope="global"`, or "erk", where `erk_counts` says how many each tensor keeps) or of each tensor
            ("layer"). Equal scores are pruned in order of position.
        min_keep: what every tensor keeps at least: a number of entries, or a share in (0, 1); nothing if None or 0.
        names: for messages.

    Returns:
        Bool tensors of the scores' shapes and placements, True = keep.

    Raises:
        InputError: sparsity or min_keep out of range, or both cannot hold together.
        TargetError: a score is NaN.
    """
    check("sparsity", sparsity, float, ge=0, lt=1)
    require_word("scope", scope, get_args(WeightScope))
    ranked = [Scores.of(score) for score in scores]
    names = _names(ranked, names)
    floors = [floor_of(score.numel(), min_keep) for score in ranked]
    if scope == "layer":
        return [
            _choose_together([score], sparsity, [floor], [name], name)[0]
            for score, floor, name in zip(ranked, floors, names, strict=True)
        ]
    if scope == "erk":
        return _choose_by_erk(ranked, sparsity, floors, names)
    return _choose_together(ranked, sparsity, floors, names, "all targets")


def erk_counts(shapes: Sequence[Sequence[int]], total: int, least: Sequence[int], most: Sequence[int]) -> list[int]:
    """How many entries each tensor keeps: Erdos-Renyi-Kernel.

    Evci et al., "Rigging the lottery: making all tickets winners", 2020. The density of a tensor is proportional to
    (fan-in + fan-out + kernel sides) / (their product), and its count to the sum of its shape: small tensors are
    denser than large ones. What would exceed a tensor is distributed over the others.

    Args:
        total: the entries that all keep together, between sum(least) and sum(most).

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
        f"{name} would keep {count} of its {count_of(mask.numel(), 'weight')}: an empty layer lets nothing through; "
        "set min_keep to keep some of them"
        for name, mask, count in zip(names, keep, true_in(keep), strict=True)
        if count < share * mask.numel()
    ]


def warn_of_collapse(keep: Sequence[Tensor], names: Sequence[str]) -> None:
    for sentence in collapsed(keep, names):
        warnings.warn(LayerCollapseWarning(*sentence.split("; ")), stacklevel=3)


def _choose_together(
    scores: Sequence[Scores], sparsity: float, floors: Sequence[int], names: Sequence[str], what: str
) -> list[Tensor]:
    count = _count(scores, sparsity, floors, what)
    # All but the `floor` best of each tensor.
    spare = [
        lowest([score], score.numel() - floor, [name])[0] if floor else None
        for score, floor, name in zip(scores, floors, names, strict=True)
    ]
    return [_negated(mark) for mark in lowest(scores, count, names, spare=spare)]


def _choose_by_erk(
    scores: Sequence[Scores], sparsity: float, floors: Sequence[int], names: Sequence[str]
) -> list[Tensor]:
    sizes = [score.numel() for score in scores]
    kept = sum(sizes) - _count(scores, sparsity, floors, "all targets")
    # Entries pruned earlier, with score -inf, are kept only if there are no others.
    alive = [max(_alive(score), floor) for score, floor in zip(scores, floors, strict=True)]
    most = alive if sum(alive) >= kept else sizes
    counts = erk_counts([score.shape for score in scores], kept, floors, most)
    return [
        _negated(lowest([score], score.numel() - count, [name])[0])
        for score, count, name in zip(scores, counts, names, strict=True)
    ]


def _negated(mark: Tensor) -> Tensor:
    """In place."""
    local(mark).logical_not_()
    return mark


def _alive(scores: Scores) -> int:
    reducer = Reducer.of([scores.tensor])
    counts = reducer.counts(scores.tensor)
    here = sum(int((piece > -torch.inf).count_nonzero()) for _, piece in scores.pieces() if counts)
    return int(reducer.add(torch.tensor(here)))


def _count(scores: Sequence[Scores], sparsity: float, floors: Sequence[int], what: str) -> int:
    """How many entries are pruned."""
    total = sum(score.numel() for score in scores)
    count = round(sparsity * total)
    if count > total - sum(floors):
        raise InputError(
            f"sparsity {sparsity} takes {count} of {count_of(total, 'entry', 'entries')} of {what}, but min_keep "
            f"holds {sum(floors)} of them: lower one of the two"
        )
    return count


def lowest(
    scores: Sequence[Tensor | Scores],
    count: int,
    names: Sequence[str] | None = None,
    *,
    spare: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """Bool tensors that mark exactly the `count` lowest of all scores; among equals, the first ones.

    Radix selection on the bits: the threshold's digits are fixed one after the other from histograms, two of them for
    float32, one for bfloat16 and float16; a last pass marks what is below.

    Args:
        names: for messages.
        spare: bool tensors, contiguous, outside of which nothing is marked. They are overwritten with the marks.

    Raises:
        TargetError: a score is NaN.
    """
    ranked = [Scores.of(score) for score in scores]
    kind = _common({score.dtype for score in ranked})
    reducer = Reducer.of([score.tensor for score in ranked])
    allowed = spare or [None] * len(ranked)
    keys = [Keys(*each, kind, reducer) for each in zip(ranked, _names(ranked, names), allowed, strict=True)]
    found = threshold_of(keys, count, 8 * kind.itemsize, reducer)
    marks, ties = [], found.ties
    for key, most in zip(keys, _most_ties(keys, found, reducer), strict=True):
        mark, used = key.below(found.key, min(ties, most))
        ties -= used
        marks.append(mark)
    return marks


class Threshold(NamedTuple):
    """key: the highest that belongs to the lowest ones. ties: how many of the `equal` ones to it belong to them."""

    key: int
    ties: int
    equal: int


class Integers(Protocol):
    """A stream of integers. counted: whether this process counts them, or another one that also has them."""

    counted: bool

    def pieces(self) -> Iterator[tuple[slice, Tensor]]: ...


class Keys:
    """One tensor's scores as integers in the same order: the bits of a float, with the negative half reversed.

    What is not spare has the largest of all integers, beyond infinity.
    """

    def __init__(self, scores: Scores, name: str, spare: Tensor | None, kind: torch.dtype, reducer: Reducer) -> None:
        self.scores, self.name, self._kind = scores, name, kind
        self._spare = None if spare is None else local(spare).view(-1)
        self._integer = _INTEGERS[kind.itemsize]
        self._infinity = int(torch.tensor(torch.inf, dtype=kind).view(self._integer))
        self.counted = reducer.counts(scores.tensor)
        self.nan = False  # whether a pass has seen one

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        largest = torch.iinfo(self._integer).max
        for place, piece in self.scores.pieces():
            score = piece.to(self._kind)
            key = score.view(self._integer)
            low, high = _ends(key)
            if low < 0:
                key = (score + 0.0).view(self._integer)  # + 0.0 turns -0.0 into 0.0
                key ^= (key >> (8 * self._kind.itemsize - 1)).bitwise_and_(largest)
                low, high = _ends(key)
            self.nan |= low < ~self._infinity or high > self._infinity
            yield place, key if self._spare is None else key.masked_fill(~self._spare[place], largest)

    def below(self, threshold: int, ties: int) -> tuple[Tensor, int]:
        """(mark of the keys below the threshold and of the first `ties` equal to it, how many of these there were)."""
        part = local(self.scores.tensor)
        mark, left = self._spare, ties
        if mark is None:
            mark = torch.empty(part.numel(), dtype=torch.bool, device=part.device)
        for place, key in self.pieces():
            marked = torch.lt(key, threshold, out=mark[place])
            if left:
                equal = (key == threshold).nonzero().flatten()[:left]
                marked[equal] = True
                left -= len(equal)
        return like(mark.view(part.shape), self.scores.tensor), ties - left


def _ends(numbers: Tensor) -> list[int]:
    """[the lowest, the highest], in one copy, for which Python waits where they are on an accelerator."""
    found: list[int] = torch.stack(numbers.aminmax()).tolist()
    return found


class _Positions:
    """Positions, in the whole flat tensor, of its keys that are equal to `key`."""

    def __init__(self, keys: Keys, key: int) -> None:
        self._keys, self._key, self.counted = keys, key, keys.counted
        self._part = Part.of(keys.scores.tensor)

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        for place, key in self._keys.pieces():
            yield place, self._part.positions((key == self._key).nonzero().flatten() + place.start)

    def upto(self, last: int) -> int:
        """How many of them this process has that are at most `last`."""
        return sum(int((positions <= last).count_nonzero()) for _, positions in self.pieces())


def threshold_of(numbers: Sequence[Integers], count: int, bits: int, reducer: Reducer) -> Threshold:
    """Of all integers, which have `bits` bits and a sign, that with the rank `count`."""
    prefix, left, equal = 0, count, 0
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        first = shift + _DIGIT == bits
        upto = reducer.add(_histogram(_digits(numbers, shift, None if first else prefix))).cumsum(0)
        if first:
            _refuse_nan(numbers, reducer)
        value = int(torch.searchsorted(upto, left))
        below = int(upto[value - 1]) if value else 0
        left, equal = left - below, int(upto[value]) - below
        prefix = value - _HALF if first else (prefix << _DIGIT) | value
    return Threshold(prefix, left, equal)


def _most_ties(all_keys: Sequence[Keys], found: Threshold, reducer: Reducer) -> list[int]:
    """How many keys equal to the threshold each tensor may mark on this process: those first in order of position.

    Alone, or where all equal ones are marked, no tensor has a bound of its own. If not, the tensor with the last tie
    is found from counts, and the position of that tie as the threshold was: from the digits of all positions.
    """
    unbounded = [found.ties] * len(all_keys)
    if reducer.alone or found.ties in (0, found.equal):
        return unbounded
    places = [_Positions(keys, found.key) for keys in all_keys]
    here = [sum(len(found) for _, found in place.pieces()) if place.counted else 0 for place in places]
    upto = reducer.add(torch.tensor(here)).cumsum(0)
    last = int(torch.searchsorted(upto, found.ties))
    left = found.ties - (int(upto[last - 1]) if last else 0)
    digits = math.ceil((1 + all_keys[last].scores.numel().bit_length()) / _DIGIT)
    position = threshold_of([places[last]], left, digits * _DIGIT, reducer).key
    return [*unbounded[:last], places[last].upto(position), *([0] * (len(all_keys) - last - 1))]


def _refuse_nan(numbers: Sequence[Integers], reducer: Reducer) -> None:
    """On all processes, whichever has seen it."""
    keys = [each for each in numbers if isinstance(each, Keys)]
    seen = reducer.add(torch.tensor([int(each.nan) for each in keys]))
    for each, has_nan in zip(keys, seen.tolist(), strict=True):
        if has_nan:
            raise TargetError(f"the scores of {each.name} hold NaN: nothing can be ranked by them")


def _digits(numbers: Sequence[Integers], shift: int, prefix: int | None) -> Iterator[Tensor]:
    """The digits above `shift`, in [0, 2**16), of those whose digits before it are `prefix`; None: it is the first.

    The first digit carries the sign.
    """
    for each in numbers:
        for _, number in each.pieces() if each.counted else ():
            if prefix is None:
                yield (number >> shift).int().add_(_HALF)
            else:
                found = number.masked_select((number >> (shift + _DIGIT)) == prefix)  # twice as fast as an index
                yield (found >> shift).int().bitwise_and_(2 * _HALF - 1)


def _histogram(digits: Iterable[Tensor]) -> Tensor:
    """How often each digit occurs: int64 [2**16]. Small pieces are counted together: a count passes over all bins."""
    histogram = torch.zeros(2 * _HALF, dtype=torch.int64)
    waiting: list[Tensor] = []

    def count() -> None:
        for device in {digit.device for digit in waiting}:
            counts = torch.cat([digit for digit in waiting if digit.device == device]).bincount().cpu()
            histogram[: len(counts)] += counts
        waiting.clear()

    entries = 0
    for digit in digits:
        waiting.append(digit)
        entries += digit.numel()
        if entries >= 2 * _HALF:
            count()
            entries = 0
    count()
    return histogram


def _common(kinds: Set[torch.dtype]) -> torch.dtype:
    """The float type that holds all of these exactly."""
    if len(kinds) == 1 and kinds <= {torch.float16, torch.bfloat16}:
        return next(iter(kinds))
    return torch.float64 if torch.float64 in kinds else torch.float32


def _names(scores: Sequence[Scores], names: Sequence[str] | None) -> Sequence[str]:
    return names or [f"tensor {index}" for index in range(len(scores))]
