"""The algebra of dimensions: a size is a product of factors, and a factor may turn out to be a product or a sum.

After `Flatten` a dimension is channels x height x width, after a concatenation it is a sum, and operators align
dimensions: aligning n with a x b finds that n was a product all along, aligning it with a + b that it was a sum.
A factor that has not been split at the end is a width, and every (tensor, dimension) that contains it shrinks with it.

Nothing here knows about operators or tensors.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Factor:
    """A factor of a dimension; it may turn out to be the product `parts` or the sum `terms` of others."""

    size: int
    reason: str | None = None  # why it must keep its size
    parts: tuple["Factor", ...] = ()
    terms: tuple[tuple["Factor", ...], ...] = ()


Dim = tuple[Factor, ...]  # a product, outermost first; () is the size 1

# The size of the batch in a trace: a prime that divides no width, so it is a separate factor.
BATCH = 1_000_003


@dataclass(frozen=True)
class Place:
    """The positions of nodes: node j is at offset + o * step + j * inner + i, for o < outer and i < inner."""

    offset: int
    outer: int
    step: int
    inner: int


def fresh(size: int, reason: str | None = None) -> Dim:
    return () if size == 1 else (Factor(size, reason),)


def size_of(dim: Dim) -> int:
    return math.prod(factor.size for factor in dim)


def joint(dims: Iterable[Dim]) -> Dim:
    """The product of several dimensions."""
    return tuple(factor for dim in dims for factor in dim)


def whole(dim: Iterable[Factor]) -> Dim:
    """The product `dim` in factors that are not known to be products; the terms of sums likewise, sums spliced."""
    leaves: list[Factor] = []
    for factor in dim:
        if factor.parts:
            factor.parts = whole(factor.parts)
            leaves += factor.parts
        else:
            if factor.terms:
                factor.terms = _spliced(factor.terms)
            leaves.append(factor)
    return tuple(leaves)


def total(terms: Iterable[Dim]) -> Dim:
    """The sum of dimensions, in order: their concatenation."""
    spliced = _spliced(terms)
    return spliced[0] if len(spliced) == 1 else (Factor(sum(map(size_of, spliced)), terms=spliced),)


def _spliced(terms: Iterable[Dim]) -> tuple[Dim, ...]:
    result: list[Dim] = []
    for term in map(whole, terms):
        result += term[0].terms if len(term) == 1 and term[0].terms else (term,)
    return tuple(result)


def leaves(dim: Iterable[Factor]) -> Iterator[Factor]:
    """The factors in `dim` that have not been split, including those within sums."""
    for factor in whole(dim):
        if factor.terms:
            for term in factor.terms:
                yield from leaves(term)
        else:
            yield factor


def keep(value: Iterable[Any] | None, reason: str) -> None:
    """Make every factor in `value`, however nested, keep its size; the first reason given counts."""
    for item in value or ():
        if not isinstance(item, Factor):
            keep(item, reason)
        elif item.parts or item.terms:
            keep((item.parts, item.terms), reason)
        else:
            item.reason = item.reason or reason


def is_kept(dim: Dim) -> bool:
    return all(factor.reason or (factor.terms and all(map(is_kept, factor.terms))) for factor in whole(dim))


def _become(leaf: Factor, dim: Dim) -> None:
    """`leaf` turns out to be the product `dim`, which must keep its size if `leaf` must."""
    leaf.parts = dim
    if leaf.reason:
        keep(dim, leaf.reason)


def align(one: Dim, other: Dim, reason: str) -> None:
    """Both are the same dimension: refine them to common factors. If that is impossible, both keep their size."""
    while True:
        one, other = whole(one), whole(other)
        while one and other and one[0] is other[0]:
            one, other = one[1:], other[1:]
        if not one or not other:
            return
        if one[0].size > other[0].size:
            one, other = other, one
        small, large = one[0], other[0]
        if small.size == large.size and not (small.terms and large.terms):
            _become(*((large, (small,)) if small.terms else (small, (large,))))
        elif large.terms and (count := _prefix(one, large.size)):
            _align_terms(large.terms, one[:count], reason)
            one, other = one[count:], other[1:]
        elif large.size % small.size or not (_take_out(large, small.size, small) if large.terms else True):
            keep((one, other), reason)
            return
        elif not large.parts:
            _become(large, (small, *fresh(large.size // small.size)))


def _prefix(dim: Dim, size: int) -> int:
    """How many leading factors of `dim` have the product `size`; 0 where none do."""
    product = 1
    for count, factor in enumerate(dim, 1):
        product *= factor.size
        if product >= size:
            return count if product == size else 0
    return 0


def _align_terms(terms: Sequence[Dim], dim: Dim, reason: str) -> None:
    """`dim` is the sum of `terms`: split it at their borders."""
    for place, term in enumerate(terms[:-1]):
        pieces = cut(dim, size_of(term))
        if pieces is None:
            keep((terms[place:], dim), reason)
            return
        align(term, pieces[0], reason)
        dim = pieces[1]
    align(terms[-1], dim, reason)


def _take_out(summed: Factor, count: int, front: Factor | None = None) -> bool:
    """A sum turns out to be `count` equal pieces, whose factor is `front`; False if it cannot be split that way."""
    pieces: list[Dim] = []
    rest: Dim = (summed,)
    for _ in range(count - 1):
        both = cut(rest, summed.size // count)
        if both is None:
            return False
        pieces.append(both[0])
        rest = both[1]
    for piece in pieces:
        align(piece, rest, _UNEQUAL)
    keep([front] if front else [], _PIECES)
    summed.parts, summed.terms = (front or Factor(count, _PIECES), *rest), ()
    return True


_PIECES = "it counts the parts of a concatenation"
_UNEQUAL = "the parts of a concatenation are used as one width, and consist of different ones"


def cut(dim: Dim, at: int) -> tuple[Dim, Dim] | None:
    """The first `at` positions of `dim`, and the others; 0 < at < its size. None if that would split a batch."""
    head, *others = whole(dim)
    rest = tuple(others)
    inner = size_of(rest)
    if not head.terms:
        if head.size % BATCH == 0:
            return None
        count, inside = divmod(at, inner)
        sizes = (count, 1, head.size - count - 1) if inside else (count, head.size - count)
        head.terms = tuple(fresh(size, head.reason) for size in sizes if size)
    before: list[Dim] = []
    for place, term in enumerate(head.terms):
        block, size = (*term, *rest), size_of(term) * inner
        after = [(*later, *rest) for later in head.terms[place + 1 :]]
        if at == 0:
            return total(before), total([block, *after])
        if at < size:
            pieces = cut(block, at)
            return pieces and (total([*before, pieces[0]]), total([pieces[1], *after]))
        before.append(block)
        at -= size
    raise AssertionError("the position lies beyond the dimension")


def split(dim: Dim, sizes: Sequence[int]) -> list[Dim] | None:
    """`dim` in consecutive pieces of the given sizes, which add up to its size; None as for `cut`."""
    pieces = []
    for size in sizes[:-1]:
        both = cut(dim, size)
        if both is None:
            return None
        pieces.append(both[0])
        dim = both[1]
    return [*pieces, dim]


def regroup(dims: Iterable[Dim], sizes: Iterable[int]) -> tuple[Dim, ...] | None:
    """The factors of `dims`, in order, as dimensions of the given sizes; None if the borders do not match."""
    pending = whole(joint(dims))
    result: list[Dim] = []
    for size in sizes:
        dim: Dim = ()
        while size > 1 and pending:
            head = pending[0]
            if size % head.size == 0:
                dim, pending, size = (*dim, head), pending[1:], size // head.size
            elif head.size % size:
                return None
            elif head.terms:
                if not _take_out(head, size):
                    return None
                pending = whole(pending)
            else:
                _become(head, (Factor(size), *fresh(head.size // size)))
                pending = whole(pending)
        result.append(dim)
    return tuple(result) if not pending else None


def places(dim: Dim) -> Iterator[tuple[Factor, Place]]:
    """Every factor in `dim` that has not been split, with the places of its nodes; repeated factors are repeated."""
    dim = whole(dim)
    for position, factor in enumerate(dim):
        outer, inner = size_of(dim[:position]), size_of(dim[position + 1 :])
        span = factor.size * inner
        if not factor.terms:
            yield factor, Place(0, outer, span, inner)
            continue
        start = 0
        for term in factor.terms:
            for leaf, place in places(term):
                yield from ((leaf, found) for found in _within(place, start, inner, outer, span))
            start += size_of(term)


def _within(place: Place, start: int, inner: int, outer: int, span: int) -> Iterator[Place]:
    """The places of a term's factor in the product around the sum.

    One for each of the product's outer positions, unless the term itself has none of its own.
    """
    offset, step, stride = (start + place.offset) * inner, place.step * inner, place.inner * inner
    if place.outer == 1:
        yield Place(offset, outer, span, stride)
    else:
        yield from (Place(offset + number * span, place.outer, step, stride) for number in range(outer))


def length(dim: Dim, left: Mapping[Factor, int]) -> int:
    """The size of `dim` if each factor in `left` has only the given number of nodes."""
    return math.prod(
        sum(length(term, left) for term in factor.terms) if factor.terms else left.get(factor, factor.size)
        for factor in whole(dim)
    )


def repeated(dim: Dim) -> set[Factor]:
    """Factors that occur twice in one product, so that node j is not a block of positions."""
    groups = [{leaf for leaf, _ in places((factor,))} for factor in whole(dim)]
    twice = {leaf for number, group in enumerate(groups) for other in groups[:number] for leaf in group & other}
    return twice.union(*(repeated(term) for factor in whole(dim) for term in factor.terms))
