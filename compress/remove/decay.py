"""Decay curves: how the mask of a pruned weight falls from 1 to 0 (paper, figure 1).

A curve maps the progress p in [0, 1] to the mask's value, with f(0) = 1, f(1) = 0 and no rise between.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from compress.errors import InputError
from compress.options import require_word
from compress.wording import count_of

Curve = Callable[[float], float]

GONE = 1e-6
"""The share of its start at which an exponentially decaying weight is cut to exactly zero."""


def exponential(progress: float, final: float = GONE) -> float:
    """The paper's choice, x**t: a constant factor per step, `final` just before the cut to 0 at progress 1."""
    return float(final**progress) if progress < 1 else 0.0


def linear(progress: float) -> float:
    return 1.0 - progress


def cosine(progress: float) -> float:
    return (1.0 + math.cos(math.pi * progress)) / 2.0


def polynomial(progress: float, power: float = 3.0) -> float:
    return float((1.0 - progress) ** power)


def sigmoid(progress: float, steepness: float = 10.0) -> float:
    """A logistic fall around the middle, stretched so that its ends are exactly 1 and 0."""

    def logistic(p: float) -> float:
        return 1.0 / (1.0 + math.exp(steepness * (p - 0.5)))

    return (logistic(progress) - logistic(1.0)) / (logistic(0.0) - logistic(1.0))


def step(progress: float, levels: int = 5) -> float:
    """A staircase of `levels` equal drops."""
    return 1.0 - math.floor(progress * levels) / levels


CURVES: dict[str, Curve] = {curve.__name__: curve for curve in (exponential, linear, cosine, polynomial, sigmoid, step)}


@dataclass(frozen=True)
class Decay:
    """A curve over a number of steps; `decay(t)` is the mask of pruned entries after t steps.

    Exactly 0.0 from step `steps` on, whatever the curve. `steps=0` is hard pruning.
    """

    steps: int
    curve: Curve

    def __call__(self, steps_done: int) -> float:
        return 0.0 if steps_done >= self.steps else self.curve(steps_done / self.steps)


def over(steps: int, curve: str | Curve = "exponential", *, final: float = GONE) -> Decay:
    """A decay that reaches zero after `steps` steps.

    Args:
        steps: at least 0; 0 removes at once.
        curve: a name of `CURVES`, or a function of the progress.
        final: the value of an exponential decay just before its cut, in (0, 1); other curves end at 0 anyway.

    Raises:
        InputError: for a negative number of steps, an unknown curve, or a `final` outside (0, 1).
    """
    if steps < 0:
        raise InputError(f"a decay over {count_of(steps, 'step')}: the number of steps must be 0 (at once) or larger")
    if not 0 < final < 1:
        raise InputError(f"final={final}: an exponential decay must end between 0 and 1, both excluded")
    if callable(curve):
        return Decay(steps, curve)
    require_word("decay", curve, CURVES)
    if curve == "exponential":
        return Decay(steps, lambda progress: exponential(progress, final))
    return Decay(steps, CURVES[curve])


def by_factor(x: float, *, final: float = GONE) -> Decay:
    """Exponential decay by the factor `x` per step (paper, eq. 1), cut to zero once x**t <= `final`.

    x = 0.9, 0.99 and 0.999 take 132, 1375 and 13809 steps to a millionth.

    Raises:
        InputError: for a factor outside (0, 1).
    """
    if not 0 < x < 1:
        raise InputError(f"decay factor {x}: it must lie between 0 and 1, both excluded")
    steps = math.ceil(math.log(final) / math.log(x))
    return Decay(steps, lambda progress: x ** (progress * steps))
