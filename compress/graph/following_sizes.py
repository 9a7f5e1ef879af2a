"""Sizes that follow from one that varies without being a multiple of it, as the height that a convolution gives.

They are what differs between two runs of the network at different sizes, operator by operator.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx


@dataclass
class _Call:
    """numbers: among the arguments of the operator. shapes: of its results."""

    operator: Any
    numbers: list[int]
    shapes: list[tuple[int, ...]] = field(default_factory=list)


class FollowingSizes:
    """Of one run. earlier: those of the run at other sizes, to compare with; nothing is known without it."""

    def __init__(self, earlier: "FollowingSizes | None" = None) -> None:
        self._earlier = earlier
        self._calls: list[_Call] = []
        self._was: _Call | None = None  # the present call in the earlier run
        self._changed: dict[int, int] = {}  # its numbers that differ, and what they were
        self._places: dict[int, tuple[fx.Node, int]] = {}  # a size that differs, and where it is found

    def call(self, operator: Any, numbers: Iterable[int]) -> None:
        """The network calls an operator, with these numbers among its arguments."""
        now = _Call(operator, [*numbers])
        was = self._earlier._call(len(self._calls)) if self._earlier else None
        alike = was is not None and was.operator is operator and len(was.numbers) == len(now.numbers)
        self._was = was if alike else None
        pairs = zip(now.numbers, self._was.numbers, strict=True) if self._was else ()
        self._changed = {one: other for one, other in pairs if one != other}
        self._calls.append(now)

    def _call(self, number: int) -> _Call | None:
        return self._calls[number] if number < len(self._calls) else None

    def result(self, node: fx.Node, result: Tensor) -> None:
        """`node` gives a tensor of these sizes."""
        if not self._calls:
            return
        shapes = self._calls[-1].shapes
        shapes.append(tuple(result.shape))
        before = self._was.shapes[len(shapes) - 1] if self._was and len(shapes) <= len(self._was.shapes) else ()
        for dim, (size, was) in enumerate(zip(result.shape, before, strict=False)):
            if size != was:
                self._places.setdefault(size, (node, dim))

    def follows(self, value: int) -> bool:
        """Whether this number of the present call is a size of an earlier result, or a multiple of one."""
        return value in self._changed and self._size_in(value) is not None

    def found(self, value: int) -> bool:
        """Whether an earlier result has this size."""
        return value in self._places

    def factors(self, value: int) -> tuple[fx.Node, int, int]:
        """A number that `follows` as the size `dim` of a node times another number: (node, dim, number)."""
        size = self._size_in(value)
        assert size is not None
        return (*self._places[size], value // size)

    def _size_in(self, value: int) -> int | None:
        if self.found(value):
            return value
        return next((size for size in self._places if size > 1 and value % size == 0), None)
