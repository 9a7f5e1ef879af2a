"""The shape of a removal: a frozen dataclass of its options, which says what happens at its steps.

Nothing here and in the members imports torch: a recipe is checked without it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from compress.options import check_options, option


class Driver(Protocol):
    """The operations of a removal on the chosen entries, done by `compress.remove.remover.Remover`."""

    def take(self, share: float = 1.0) -> None:
        """Choose the set again: `share` of the final one."""

    def fade_to(self, factor: float) -> None:
        """Set the whole set to `factor` times its start; 0 is final."""

    def fade_by(self, factor: float) -> None:
        """Multiply the whole set by `factor`."""

    def cut(self, latest: int) -> None:
        """Zero those that joined the set at step `latest` or earlier."""

    def shrink(self, factor: float) -> None:
        """Multiply the weights themselves, which may grow again."""


def steps_option(doc: str) -> Any:
    """The length of a removal; in recipes `over`, a duration."""
    return option(doc, ge=1, recipe="over", duration=True)


def every_option(doc: str) -> Any:
    return option(doc, 20, ge=1, duration=True)


class Removal:
    """How selected entries are removed. A subclass overrides what happens at the start, at a step, and at the end.

    Each removal is a frozen dataclass in a separate file, listed in `compress.remove.removals.REMOVALS`. The first
    sentence of its docstring is shown in the reference of recipes.
    """

    words: ClassVar[tuple[str, ...]] = ()
    """Its names in recipes."""

    learns: bool = False
    """Whether chosen entries keep learning; if not, they get no gradient and no optimizer moves them (eq. 1)."""

    together: ClassVar[bool] = False
    """Whether all chosen entries have the same factor, which falls from 1 to 0."""

    cohorts: ClassVar[bool] = False
    """Whether entries join the set at several times, may leave it while they decay, and are `cut` by their age."""

    grows: ClassVar[bool] = False
    """Whether the set grows along a ramp, so that it is chosen again at each step of the ramp."""

    default_share: ClassVar[float] = 0.75
    """The share of the retraining that it takes in a recipe that does not say."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def length(self) -> int:
        """The optimizer steps after which everything chosen is exactly zero; 0 is at once."""
        steps: int = getattr(self, "steps", 0)
        return steps

    @property
    def word(self) -> str:
        """The name that recipes have for it."""
        return self.words[0] if self.words else type(self).__name__

    def start(self, driver: Driver) -> None:
        """Before the first step."""
        driver.take()

    def advance(self, driver: Driver, step: int) -> None:
        """After the optimizer's step number `step`, in [1, length)."""

    def finish(self, driver: Driver) -> None:
        """At step `length`: afterwards all selected entries are exactly zero."""
        driver.fade_to(0.0)
