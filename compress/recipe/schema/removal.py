"""How what was chosen goes."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from compress.duration import Duration
from compress.recipe.schema.criterion import Samples
from compress.recipe.schema.parts import DurationText, Part, spelled_out


class HardRemoval(Part):
    """Zero at once, before the retraining."""

    kind: Literal["hard"]


class SoftRemoval(Part):
    """Decay to zero during the retraining (paper, eq. 1)."""

    kind: Literal["soft"]
    decay: Literal["exponential", "linear", "cosine", "polynomial", "sigmoid", "step"] = Field(
        default="exponential", description="the curve of the decay"
    )
    over: DurationText | None = Field(default=None, description="gone after so long; the whole retraining if absent")
    factor: float | None = Field(
        default=None, gt=0, lt=1, description="the factor x of every step, instead of `over` (exponential only)"
    )
    final: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        validate_default=True,
        description="share of the start at which a weight is cut to zero; 1e-6 if absent (exponential only)",
    )
    learns: bool = Field(default=False, description="whether the weights underneath the decaying mask go on learning")

    @field_validator("factor")
    @classmethod
    def _factor_is_exponential_and_alone(cls, factor: float | None, info: ValidationInfo) -> float | None:
        _check_exponential("factor", factor, info)
        if factor is not None and info.data.get("over") is not None:
            raise ValueError("found together with `over`, which says the same; keep one of the two")
        return factor

    @field_validator("final")
    @classmethod
    def _final_is_exponential(cls, final: float | None, info: ValidationInfo) -> float | None:
        _check_exponential("final", final, info)
        return 1e-6 if final is None and info.data.get("decay") == "exponential" else final


class GradualRemoval(Part):
    """A set that grows along a cubic ramp, chosen anew at each of its steps, gone at once (Zhu & Gupta, 2017)."""

    kind: Literal["gradual"]
    over: DurationText | None = Field(
        default=None, description="gone after so long; three quarters of the retraining if absent"
    )
    every: DurationText = Field(default=Duration(20, "steps"), description="the time between two steps of the ramp")


class GradualSoftRemoval(Part):
    """Like gradual, and what joins the set at a step of the ramp decays; it may leave the set until it is gone."""

    kind: Literal["gradual_soft"]
    over: DurationText | None = Field(
        default=None, description="all gone after so long; three quarters of the retraining if absent"
    )
    every: DurationText = Field(default=Duration(20, "steps"), description="the time between two steps of the ramp")
    cohort: DurationText | None = Field(
        default=None, description="what joins the set is gone after so long; a quarter of `over` if absent"
    )
    final: float = Field(default=1e-3, gt=0, lt=1, description="share of the start at which the last ones are cut")


class FilterRemoval(Part):
    """The lowest are zeroed (sfp: He, 2018) or lowered ever more (srfp: He, 2020) again and again, and may return."""

    kind: Literal["sfp", "srfp"]
    over: DurationText | None = Field(
        default=None, description="gone for good after so long; three quarters of the retraining if absent"
    )
    every: DurationText = Field(default=Duration(20, "steps"), description="the time between two choices")


class PenaltyRemoval(Part):
    """A penalty on what was chosen grows until it is cut (GReg-1; Wang, 2021)."""

    kind: Literal["greg"]
    over: DurationText | None = Field(
        default=None, description="gone after so long; three quarters of the retraining if absent"
    )
    ceiling: float = Field(
        default=0.05, gt=0, lt=1, description="the last penalty: the share of a weight that a step takes away"
    )


class Regrowth(Part):
    """At each new choice of a gradual removal, the gone weights with the largest |gradient| come back at zero, and as
    many others go in their stead (RigL; Evci, 2020)."""

    share: float = Field(
        gt=0,
        lt=1,
        description="how many: this share of the weights that live, or of those that are gone where these are fewer; "
        "by half a cosine it falls to 0 until the set is complete",
    )
    samples: Samples = Field(500, description="take the gradient on the first so many training images, or on all")


def _check_exponential(key: str, value: float | None, info: ValidationInfo) -> None:
    decay = info.data.get("decay", "exponential")
    if value is not None and decay != "exponential":
        raise ValueError(
            f"found {value}, and only the exponential decay has a `{key}`; remove the key (decay is {decay})"
        )


RemovalName = Literal["hard", "soft", "gradual", "gradual_soft", "sfp", "srfp", "greg"]
AnyRemoval = Annotated[
    HardRemoval | SoftRemoval | GradualRemoval | GradualSoftRemoval | FilterRemoval | PenaltyRemoval,
    Field(discriminator="kind"),
]
Removal = Annotated[AnyRemoval, BeforeValidator(spelled_out, json_schema_input_type=RemovalName | AnyRemoval)]
