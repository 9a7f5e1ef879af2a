"""The order of a network's widths: which of them are bottlenecks, and what passes through them."""

from collections.abc import Mapping

from compress.graph.coupling import Coupling, Couplings


class Widths:
    def __init__(self, known: Couplings, size: Mapping[Coupling, int]) -> None:
        """
        Args:
            size: of every coupling that can shrink, how many nodes it has.
        """
        self._size, self._shapes = size, known.shapes
        self._at = {
            (member.tensor, member.dim): coupling
            for coupling in known.found
            for member in coupling.members
            if member.role != "follows"
        }

    def is_bottleneck(self, one: Coupling) -> bool:
        """Whether the width is smaller than what its layers read, and grows again after it."""
        before = [self._width(end) for end in self._ends(one, "writes")]
        if not before or min(before) < self._size[one] or max(before) == self._size[one]:
            return False
        return self._grows(one, set())

    def all_pass(self, one: Coupling, gate: Coupling) -> bool:
        """Whether every way from the nodes `one` to the network's output leads through the nodes `gate`."""
        seen, waiting, meets = {one}, [one], False
        while waiting:
            for end in self._ends(waiting.pop(), "reads"):
                following = self._at.get(end)
                if following is None:
                    return False
                meets |= following == gate
                if following not in seen and following != gate:
                    seen.add(following)
                    waiting.append(following)
        return meets

    def _grows(self, one: Coupling, seen: set[Coupling]) -> bool:
        """Whether the next width that is not equal is larger, on every way."""
        seen.add(one)
        ends = self._ends(one, "reads")
        for end in ends:
            width, following = self._width(end), self._at.get(end)
            if width < self._size[one]:
                return False
            level = width == self._size[one]
            if level and (following is None or (following not in seen and not self._grows(following, seen))):
                return False
        return bool(ends)

    def _ends(self, one: Coupling, role: str) -> list[tuple[str, int]]:
        """The other sides of the matrices that write or read the nodes, as (tensor, dimension)."""
        found = dict.fromkeys(
            (member.tensor, 1 - member.dim)
            for member in one.members
            if member.role == role and member.dim < 2 and len(self._shapes.get(member.tensor, ())) > 1
        )
        return [end for end in found if self._at.get(end) != one]

    def _width(self, end: tuple[str, int]) -> int:
        coupling = self._at.get(end)
        return self._shapes[end[0]][end[1]] if coupling is None else self._size[coupling]
