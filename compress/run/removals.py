"""What a recipe's `removal` means in optimizer steps."""

from compress.errors import InputError
from compress.recipe import schema
from compress.remove import decay
from compress.remove.gradual import Gradual
from compress.remove.greg import GrowingPenalty
from compress.remove.hard import Hard
from compress.remove.pruner import Removal
from compress.remove.sfp import Filters
from compress.remove.soft import Soft

OVER = 0.75
"""The share of the retraining after which everything is gone where a removal that takes its time does not say."""

COHORT = 0.25
"""The share of that in which a cohort of gradual soft removal goes."""


def schedule(stage: schema.Stage, steps_per_epoch: int) -> tuple[int, Removal]:
    """(steps of the retraining, the removal within it).

    Raises:
        InputError: the removal is not over when the retraining is.
    """
    steps = stage.retrain.epochs * steps_per_epoch if stage.retrain is not None else 0
    removal = _removal(stage.removal, steps, steps_per_epoch)
    if removal.steps > steps:
        raise InputError(
            f"the {stage.removal.kind} removal takes {removal.steps} steps until everything is gone and the retraining "
            f"has {steps} ({steps_per_epoch} an epoch): retrain for longer, or let it go faster"
        )
    return steps, removal


def _removal(wanted: schema.AnyRemoval, steps: int, steps_per_epoch: int) -> Removal:
    if isinstance(wanted, schema.HardRemoval):
        return Hard()
    if isinstance(wanted, schema.SoftRemoval):
        return _soft(wanted, steps, steps_per_epoch)
    over = max(1, round(OVER * steps)) if wanted.over is None else wanted.over.steps(steps_per_epoch)
    if isinstance(wanted, schema.PenaltyRemoval):
        return GrowingPenalty(over, ceiling=wanted.ceiling)
    every = wanted.every.steps(steps_per_epoch)
    if isinstance(wanted, schema.FilterRemoval):
        return Filters(over, every, softer=wanted.kind == "srfp")
    if isinstance(wanted, schema.GradualRemoval):
        return Gradual(over, every)
    cohort = round(COHORT * over) if wanted.cohort is None else wanted.cohort.steps(steps_per_epoch)
    if cohort >= over:
        raise InputError(
            f"a cohort takes {cohort} steps to go and everything is to be gone after {over}: there is no time for a "
            "ramp; shorten `cohort`, or use soft removal"
        )
    return Gradual(over - cohort, every, cohort, final=wanted.final)


def _soft(wanted: schema.SoftRemoval, steps: int, steps_per_epoch: int) -> Soft:
    final = decay.GONE if wanted.final is None else wanted.final
    if wanted.factor is not None:
        fall = decay.by_factor(wanted.factor, final=final)
    else:
        over = steps if wanted.over is None else wanted.over.steps(steps_per_epoch)
        fall = decay.over(over, wanted.decay, final=final)
    return Soft(fall, learns=wanted.learns)
