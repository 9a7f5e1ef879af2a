"""A stretch of training, as people write it: "3 epochs" or "1000 steps"."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, Self


@dataclass(frozen=True)
class Duration:
    """A stretch of training, written as "3 epochs", "0.5 epochs" or "1000 steps"."""

    amount: float
    unit: Literal["epochs", "steps"]

    # The few decimals keep `str` free of exponents, so that it reads back as the same number.
    PATTERN: ClassVar[str] = r"^([0-9]{1,9}(?:\.[0-9]{1,4})?) +(step|epoch)s?$"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read "3 epochs"; raises ValueError for a missing unit, an amount of 0, or a fraction of a step."""
        if isinstance(value, cls):
            return value
        match = re.fullmatch(cls.PATTERN, value) if isinstance(value, str) else None
        if match is None or not float(match[1]) or (match[2] == "step" and not float(match[1]).is_integer()):
            raise ValueError(f"found {value!r}; needs a number above 0 and its unit, as `3 epochs` or `1000 steps`")
        return cls(float(match[1]), "steps" if match[2] == "step" else "epochs")

    def steps(self, steps_per_epoch: int) -> int:
        """The duration in optimizer steps, at least one."""
        return max(1, round(self.amount * (steps_per_epoch if self.unit == "epochs" else 1)))

    def __str__(self) -> str:
        return f"{self.amount:.15g} {self.unit[:-1] if self.amount == 1 else self.unit}"
