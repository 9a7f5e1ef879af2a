"""Soft pruning (Menzies & Siebert, eq. 1): chosen entries decay to zero while the rest trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from compress.errors import InputError
from compress.options import option
from compress.remove import decay as decays
from compress.remove.removals.removal import Driver, Removal

CurveName = Literal["exponential", "linear", "cosine", "polynomial", "sigmoid", "step"]


def _exponential_only(value: Any, before: Mapping[str, Any]) -> str | None:
    decay = before.get("decay", "exponential")
    if value is not None and decay != "exponential":
        return f"found {value}, and only the exponential decay has it (decay is {decay}); remove it"
    return None


def _falls(decay: Any, before: Mapping[str, Any]) -> str | None:
    """A curve of the user's own is tried where it begins, in the middle, and near its end."""
    if isinstance(decay, str):
        return None
    try:
        seen = [decay(progress) for progress in (0.0, 0.5, 1.0)]
    except Exception as error:  # a function of the user's own may raise anything
        return f"the function failed for a progress in [0, 1]: {type(error).__name__}: {error}"
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in seen) or seen[0] != 1:
        return f"the function gave {seen} for the progress 0, 0.5 and 1; it must fall from 1, within [0, 1]"
    return None


def _factor_alone(value: Any, before: Mapping[str, Any]) -> str | None:
    if value is not None and before.get("steps") is not None:
        return "found together with the length, which sets the same; keep one of the two"
    return _exponential_only(value, before)


def _gone_if_exponential(before: Mapping[str, Any]) -> float | None:
    return decays.GONE if before.get("decay") == "exponential" else None


@dataclass(frozen=True)
class Soft(Removal):
    """Selected entries decay to zero during the retraining (paper, eq. 1).

    One set, chosen at the start, whose mask falls along the decay; see `compress.remove.decay`.
    """

    words = ("soft",)
    together = True

    steps: int | None = option(
        "length of the removal; three quarters of the retraining if absent", None, ge=0, recipe="over", duration=True
    )
    decay: CurveName | decays.Curve = option("the curve of the decay", "exponential", rule=_falls)
    factor: float | None = option(
        "the factor x of each step, instead of the length (exponential only)", None, gt=0, lt=1, rule=_factor_alone
    )
    final: float | None = option(
        "share of the start value at which a weight is set to zero; 1e-6 if absent (exponential only)",
        None,
        gt=0,
        lt=1,
        rule=_exponential_only,
        fill=_gone_if_exponential,
    )
    learns: bool = option("whether weights under the decaying mask keep learning", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is None and self.factor is None:
            raise InputError(
                "Soft(...): give steps=..., the optimizer steps after which everything is removed, or factor=..., the "
                "x of eq. 1"
            )

    @cached_property
    def mask(self) -> decays.Decay:
        """The mask of chosen entries, as a function of the steps done."""
        final = decays.GONE if self.final is None else self.final
        if self.factor is not None:
            return decays.by_factor(self.factor, final=final)
        assert self.steps is not None
        return decays.over(self.steps, self.decay, final=final)

    @property
    def length(self) -> int:
        return self.mask.steps

    def advance(self, driver: Driver, step: int) -> None:
        driver.fade_to(self.mask(step))
