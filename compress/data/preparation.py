"""`Preparation`: how a raw sample (a picture, a row, a sentence) becomes what the network is called with."""

from dataclasses import dataclass
from typing import Any, Protocol

from compress.data.image_options import AS_STORED, ImageOptions


class Preparation(Protocol):
    """What is known about the way from a raw sample to the network's input; it is written into every file of a run."""

    def described(self) -> dict[str, Any]:
        """As JSON, with `kind` ("images", "table", "arrays", "series", "text") and all that repeats the preparation.

        Statistics and vocabularies are in it as numbers and words, never as a path.
        """
        ...


@dataclass(frozen=True)
class Images:
    """An image is prepared as `options` say; pixels, 0 to 255, are divided by 255; then the mean is subtracted, and the
    result divided by the deviation.

    mean, std: a number for each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: ImageOptions = AS_STORED

    def described(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": "images", "mean": list(self.mean), "std": list(self.std)}
        options = self.options
        found["normalise"] = options.normalise if isinstance(options.normalise, str) else "own"
        if options.upright:
            found["upright"] = True
        for name in ("channels", "resize", "crop"):
            if (value := getattr(options, name)) is not None:
                found[name] = list(value) if isinstance(value, tuple) else value
        return found
