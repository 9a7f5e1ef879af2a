"""What is asked of int8: which kind, what its ranges are measured on, and how much it may lose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compress.errors import InputError
from compress.options import check, check_options, option, shown

Kind = Literal["static", "dynamic"]
Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy")


@dataclass(frozen=True)
class Calibration:
    """How the ranges of activations are measured, for static int8."""

    samples: int = option("training samples that the ranges are measured on", 512, ge=1)
    method: Method = option(
        "minmax takes the whole range, percentile leaves out 0.001 % of the values, and entropy clips where the "
        "distribution changes least",
        "minmax",
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Quantization:
    """How an ONNX file becomes int8.

    exclude: node names or operator types that remain float, with wildcards, such as "Gemm" or "*head*".
    """

    kind: Literal["auto", "static", "dynamic"] = option(
        "static has fixed ranges of activations, which calibration measures; dynamic measures them at each call; auto "
        "tries both and keeps the fastest within max_drop",
        "auto",
    )
    per_channel: bool = option("a scale for each output of a layer, or else one for the whole weight", True)
    max_drop: float = option(
        "the most that may be lost on held-out training data of the metric that ranks: points of an accuracy or other "
        "share, percent of a loss or other number",
        0.5,
        ge=0,
    )
    calibration: Calibration = Calibration()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_options(self)
        if not isinstance(self.calibration, Calibration):
            raise InputError(f"Quantization(calibration=...): found {shown(self.calibration)}; expected Calibration()")
        if not isinstance(self.exclude, list | tuple):
            raise InputError(f"Quantization(exclude=...): found {shown(self.exclude)}; expected a list of patterns")
        for pattern in self.exclude:
            check("Quantization(exclude=...)", pattern, str)
