"""Sizes that follow from a varying size without being a multiple of it, such as the height after a convolution.

They are the numbers that differ between two runs of the network at different sizes, operator by operator.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from torch import Tensor, fx

from compress.graph.dimensions import BATCH


@dataclass
class _Call:
    """numbers: among the arguments of the operator. shapes: of its results."""

    operator: Any
    numbers: list[int]
    shapes: list[tuple[int, ...]] = field(default_factory=list)


class FollowingSizes:
    """Of one run.

    Args:
        sizes: those that vary, by name, as they are in this run.
        earlier: of the run at other sizes, to compare with; nothing is known without it.
    """

    def __init__(self, sizes: Mapping[str, int], earlier: "FollowingSizes | None" = None) -> None:
        self._sizes = sizes
        self._earlier = earlier
        self._calls: list[_Call] = []
        self._was: _Call | None = None  # the present call in the earlier run
        self._changed: dict[int, int] = {}  # its numbers that differ, and what they were
        self._places: dict[int, tuple[fx.Node, int, int]] = {}  # a size, where it was last found, what it was

    def call(self, operator: Any, numbers: Iterable[int]) -> None:
        """The network calls an operator, with these numbers among its arguments."""
        now = _Call(operator, [*numbers])
        was = self._earlier._call(len(self._calls)) if self._earlier else None
        alike = was is not None and was.operator is operator and len(was.numbers) == len(now.numbers)
        if not alike:
            self._earlier = None  # from here on the runs do different things
        self._was = was if alike else None
        pairs = zip(now.numbers, self._was.numbers, strict=True) if self._was else ()
        changed = {one: other for one, other in pairs if one != other}
        rows = {one // BATCH: other // BATCH for one, other in changed.items() if one % BATCH == other % BATCH == 0}
        self._changed = changed | rows
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
        node.meta["varying"] = [
            dim for dim, (size, was) in enumerate(zip(result.shape, before, strict=False)) if size != was
        ]
        for dim in node.meta["varying"]:
            self._places.pop(result.shape[dim], None)
            self._places[result.shape[dim]] = (node, dim, before[dim])

    def follows(self, value: int) -> bool:
        """Whether this number of the present call follows from sizes of earlier results."""
        return value in self._changed and (self.factors(value) is not None or self.line(value) is not None)

    def found(self, value: int) -> bool:
        """Whether an earlier result has this size."""
        return value in self._places

    def line(self, value: int) -> tuple[int, int, int] | None:
        """The number as (size, times, plus) for a size that varies, as the end of `arange(1, length + 1)` is."""
        if self._earlier is None or value not in self._changed:
            return None
        for name, size in self._sizes.items():
            step = size - self._earlier._sizes[name]
            times, rest = divmod(value - self._changed[value], step) if step else (0, 1)
            plus = value - times * size
            if rest == 0 and times > 0 and abs(plus) < size // 4:
                return size, times, plus
        return None

    def factors(self, value: int) -> tuple[fx.Node, int, int, int] | None:
        """The number as the size of a node times one number by another: (node, dim, times, by)."""
        if self.found(value):
            return (*self._places[value][:2], 1, 1)
        latest = [*reversed(self._places.items())]
        for size, (node, dim, _) in latest:
            if value % size == 0 and self.found(value // size):
                return node, dim, value // size, 1
        for size, (node, dim, was) in latest:
            if value * was == self._changed.get(value, -1) * size:
                common = gcd(value, size)
                return node, dim, value // common, size // common
        return None
