"""The list of criteria, which decide which weights or nodes are pruned first; each has a file."""

from typing import Final

from compress.errors import InputError
from compress.options import require_word
from compress.select.criteria.ablation import Ablation
from compress.select.criteria.criterion import Criterion
from compress.select.criteria.function import FunctionCriterion
from compress.select.criteria.lamp import Lamp
from compress.select.criteria.magnitude import Magnitude
from compress.select.criteria.norms import Norms
from compress.select.criteria.obd import OBD
from compress.select.criteria.obs import OBS
from compress.select.criteria.principal_axes import PrincipalAxes
from compress.select.criteria.random import Random
from compress.select.criteria.scaled_magnitude import ScaledMagnitude
from compress.select.criteria.skeletonization import Skeletonization
from compress.select.criteria.snip import Snip
from compress.select.criteria.taylor import Taylor
from compress.select.criteria.variance import Variance

CRITERIA: Final[tuple[type[Criterion], ...]] = (
    *(Magnitude, Random, ScaledMagnitude, Lamp, Taylor, Snip, OBD, OBS),
    *(Skeletonization, Norms, Variance, Ablation, PrincipalAxes),
)

BY_WORD: Final = {word: member for member in CRITERIA for word in member.words}


def criterion_of(wanted: object) -> Criterion:
    """The criterion for a word such as "taylor_square", a criterion itself, or a function of a tensor of weights.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(wanted, Criterion) and type(wanted) is not Criterion:
        return wanted
    if isinstance(wanted, str):
        require_word("criterion", wanted, BY_WORD)
        return BY_WORD[wanted](**BY_WORD[wanted].decided_by(wanted))
    if isinstance(wanted, type) and issubclass(wanted, Criterion):
        raise InputError(f"criterion: found the class {wanted.__name__}; give an object of it, {wanted.__name__}()")
    if callable(wanted) and not isinstance(wanted, type):
        return FunctionCriterion(wanted)
    raise InputError(
        f"criterion: found {wanted!r}; expected a word ({', '.join(BY_WORD)}), a criterion such as "
        "compress.Taylor(), or a function that scores a tensor"
    )


__all__ = [
    "BY_WORD",
    "CRITERIA",
    "OBD",
    "OBS",
    "Ablation",
    "Criterion",
    "FunctionCriterion",
    "Lamp",
    "Magnitude",
    "Norms",
    "PrincipalAxes",
    "Random",
    "ScaledMagnitude",
    "Skeletonization",
    "Snip",
    "Taylor",
    "Variance",
    "criterion_of",
]
