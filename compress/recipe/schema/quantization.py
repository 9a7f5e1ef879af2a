"""How the slim network's ONNX file becomes int8: generated from `compress.quantize.settings`."""

from typing import TYPE_CHECKING

from pydantic import Field

from compress.quantize import settings
from compress.recipe.schema.described import Described, part_of
from compress.recipe.schema.parts import Distinct, Text


class CalibrationPart(Described):
    def build(self) -> settings.Calibration:
        return settings.Calibration(**self.options())


if TYPE_CHECKING:
    Calibration = CalibrationPart
else:
    Calibration = part_of(CalibrationPart, settings.Calibration)


class QuantizationPart(Described):
    calibration: Calibration = Field(
        default=Calibration(), description="how the ranges of activations are measured, for static int8"
    )
    exclude: Distinct[Text] = Field(
        default=(), description="node names or operator types to keep in float, with wildcards: Gemm, or *head*"
    )

    def build(self) -> settings.Quantization:
        return settings.Quantization(**self.options(), calibration=self.calibration.build(), exclude=self.exclude)


if TYPE_CHECKING:
    Quantization = QuantizationPart
else:
    Quantization = part_of(QuantizationPart, settings.Quantization)
