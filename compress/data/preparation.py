"""`Preparation`: how a raw sample (a picture, a row, a sentence) becomes what the network is called with."""

from dataclasses import dataclass
from typing import Any, Protocol


class Preparation(Protocol):
    """What is known about the way from a raw sample to the network's input; it is written into every file of a run."""

    def described(self) -> dict[str, Any]:
        """As JSON, with `kind` ("images", "table", "arrays", "series", "text") and all that repeats the preparation.

        Statistics and vocabularies are in it as numbers and words, never as a path.
        """
        ...


@dataclass(frozen=True)
class Images:
    """Pixels, 0 to 255, are divided by 255; then the mean is subtracted, and the result divided by the deviation.

    mean, std: a number for each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def described(self) -> dict[str, Any]:
        return {"kind": "images", "mean": list(self.mean), "std": list(self.std)}
