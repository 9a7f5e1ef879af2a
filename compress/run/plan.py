"""`compress plan`: what a recipe would do to a network, and how long it would take; writes nothing."""

import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from compress.data.attributes import classes_of
from compress.documents import (
    MatchedTarget,
    NetworkSize,
    Plan,
    PlannedShape,
    PlannedStage,
    PlanSeconds,
    RehearsedStage,
    StageSeconds,
)
from compress.errors import UnsupportedModelError
from compress.graph import stats
from compress.graph.twin import copied
from compress.recipe import schema
from compress.remove.removals import Removal
from compress.remove.remover import Remover
from compress.results import ScratchLength, Warned
from compress.run import measuring, rehearse
from compress.run.against_constant import Compared, constant_output
from compress.run.apply import load_dense
from compress.run.cautions import LocationOf
from compress.run.clock import Clock
from compress.run.entries import taken
from compress.run.provenance import describe_data
from compress.run.pruning import in_batches_of, masks_gradients
from compress.run.rehearsed import Matched, Rehearsed
from compress.run.rivals import parts_of
from compress.run.setting import Setting, optimization, unwatched
from compress.run.stage import describe_target, shaping_of, teacher_of
from compress.select.choose import LayerCollapseWarning
from compress.select.compensate import COMPENSATION_SAMPLES
from compress.select.pruned import Pruned
from compress.select.scoring import EVALUATION_BATCH
from compress.slimming.shrink import slim
from compress.slimming.slim_graph import warn_of_graph
from compress.train import metrics
from compress.train.loop import only_trainable

FEW, MANY = 3, 30
"""Training steps to time: a few in any case, and more if they are quick."""

QUICK = 1.0
"""Seconds of training that suffice for an estimate."""

Now = Callable[[], float]


def plan(
    recipe: schema.Recipe,
    source: Path | None,
    setting: Setting,
    *,
    warned: Sequence[Warned] = (),
    place: LocationOf = str,
    now: Now = time.perf_counter,
) -> Plan:
    """Rehearse all stages, and time a few steps of their training.

    Args:
        source: weights of the network; without them, the scores are those of an untrained network.
        warned: as for `running.apply`.
        now: the time in seconds.

    Returns:
        The plan; its sizes are measured on the slimmed network.

    Raises:
        The errors that `running.apply` raises before it trains.
    """
    torch.manual_seed(recipe.seed)
    network, _ = load_dense(recipe, source, setting)
    dense = copied(network)
    setting, pruned = dataclasses.replace(setting, dense=lambda: dense), Pruned()
    size = _size(network, setting)
    kept = setting.couplings(network).kept
    measured, beside, evaluation = _measured(network, setting, now)
    if source is not None:
        measuring.judge(recipe, network, setting, measured, beside)
    stages: list[PlannedStage] = []
    slimming = 0.0
    for stage in rehearse.rehearse(recipe, network, pruned, setting, place, now):
        seconds = _seconds(stage, network, pruned, setting, evaluation, now)
        start = now()
        after = _slim_size(network, setting)
        slimming = now() - start
        stages.append({**_described(stage), "shape": _shape(stage, setting), "after": after, "seconds": seconds})
    closing = slimming + 2 * evaluation  # of the dense network and of the slim one
    rivals = _seconds_of_rivals(recipe, stages, evaluation)
    own = sum(stage["seconds"]["total"] for stage in stages)
    planned: PlanSeconds = {
        "stages": own,
        "closing": closing,
        "total": own + rivals + closing,
        "without": "export and benchmark",
    }
    if rivals:
        planned["rivals"] = rivals
    found: Plan = {
        "recipe": recipe.name,
        "model": None if source is None else str(source),
        "seed": recipe.seed,
        "data": describe_data(setting),
        "now": size,
        "stages": stages,
        "kept": [{"layer": layer, "reason": reason} for layer, reason in sorted(kept.items())],
        "seconds": planned,
        "warnings": list(warned),
    }
    if source is not None:
        found["dense"] = measuring.document(measured, setting, beside)
    return found


def _described(found: Rehearsed) -> RehearsedStage:
    stage = found.stage
    return {
        **taken(
            stage,
            describe_target(stage),
            asked=found.asked,
            achieved=found.achieved,
            pruned=found.pruned,
            of=found.of,
        ),
        "matched": [_matched(one) for one in found.matched],
        "chosen": {
            "by": "even scores" if found.even else "criterion",
            "samples": found.samples,
            "again": times_chosen(found.removal) > 1,
        },
        "steps": found.steps,
        "steps_per_epoch": found.steps_per_epoch,
        "removal_steps": found.removal.length,
    }


def _shape(found: Rehearsed, setting: Setting) -> PlannedShape | None:
    shape, latent = found.stage.shape, found.latent
    if shape is None or latent is None:
        return None
    classes = classes_of(setting.data, [*shape.keep, *shape.drop])
    return {"layer": latent.layer, "keep": shape.keep, "drop": shape.drop, "classes": classes}


def _matched(one: Matched) -> MatchedTarget:
    found: MatchedTarget = {"name": one.name, "of": one.of, "goes": one.goes, "earlier": one.earlier}
    if one.layers:
        found["layers"] = list(one.layers)
    return found


# --- sizes ---


def _size(network: nn.Module, setting: Setting) -> NetworkSize:
    size, tensors = stats.measure(network, setting.example), network.state_dict().values()
    return {
        "params": size.params,
        "nonzero": size.nonzero,
        "macs": size.macs,
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    }


def _slim_size(network: nn.Module, setting: Setting) -> NetworkSize:
    """The size of the slim network; if nothing can be cut out (`rehearse` warns of it), with its zeros."""
    network.eval()
    try:
        small = slim(network, setting.example, known=setting.couplings(network), dynamic=setting.dynamic)
        warn_of_graph(small)
        return _size(small, setting)
    except UnsupportedModelError:
        return _size(network, setting)


# --- how long ---


def times_chosen(removal: Removal) -> int:
    """How often a removal chooses what to prune, found by running it on an empty module."""
    count = 0

    def counted(share: float, removed: object) -> list[torch.Tensor]:
        nonlocal count
        count += share > 0
        return []

    remover = Remover(nn.Module(), [], counted, 1.0, removal)
    while not remover.removed:
        remover.step()
    return count


def _seconds(
    found: Rehearsed, network: nn.Module, pruned: Pruned, setting: Setting, evaluation: float, now: Now
) -> StageSeconds:
    setting = in_batches_of(found.stage, setting)
    step, timed = _seconds_of_step(found, network, pruned, setting, now) if found.steps else (0.0, 0)
    per_sample = evaluation / max(
        1, EVALUATION_BATCH * len(setting.data.batches("test", EVALUATION_BATCH, setting.task))
    )
    training = found.steps * step
    selection = _seconds_of_selection(found, per_sample, setting, step)
    evaluations = 2 * evaluation  # before and after the removal
    return {
        "training": training,
        "selection": selection,
        "evaluation": evaluations,
        "total": training + selection + evaluations,
        "timed_steps": timed,
    }


def _seconds_of_step(
    found: Rehearsed, network: nn.Module, pruned: Pruned, setting: Setting, now: Now
) -> tuple[float, int]:
    """(median seconds of a training step of the stage, with masks, teacher and shaping; number of timed steps)."""
    stage, retrain, trial = found.stage, found.stage.retrain, copied(network)
    assert retrain is not None
    teacher = teacher_of(trial, stage, setting)
    keep = [pruned.keep[path] for path in found.paths]
    quiet = dataclasses.replace(setting, watcher=unwatched, clock=Clock())
    # The rehearsal has already warned of it.
    ignored = warnings.catch_warnings(action="ignore", category=LayerCollapseWarning)
    latent = None if found.latent is None else dataclasses.replace(found.latent, model=trial)
    shaped = shaping_of(stage, found.number, latent, setting)
    with ignored, only_trainable(trial, found.trainable), shaped as shaping:
        masks = masks_gradients(stage, found.removal)
        remover = Remover(trial, found.paths, lambda share, removed: keep, 1.0, found.removal, mask_gradients=masks)

        def durations(steps: int) -> list[float]:
            ends: list[float] = []

            def after_step(step: int) -> None:
                if shaping is not None:
                    shaping.step()
                remover.step()
                ends.append(now())

            quiet.train(trial, steps, optimization(retrain), after_step, teacher, remover, shaping=shaping)
            return [end - start for start, end in pairwise(ends)]

        taken = durations(FEW)
        if statistics.median(taken) * FEW < QUICK:
            taken = durations(min(MANY, max(FEW, int(QUICK / max(statistics.median(taken), 1e-9)))))
    return statistics.median(taken), len(taken)


def _seconds_of_selection(found: Rehearsed, per_sample: float, setting: Setting, step: float) -> float:
    """Each choice takes longer than the rehearsed one in proportion to the samples of the criterion."""
    stage, choices = found.stage, times_chosen(found.removal)
    share = (found.wanted or found.samples or 1) / (found.samples or 1)
    if found.even:  # a forward pass over the samples for each node
        choice = found.choice_seconds + per_sample * (found.wanted or 0) * found.of
    else:
        choice = found.choice_seconds * share
    # Principal axes are found once, before anything is chosen.
    once = found.analysis_seconds * (share if stage.criterion.kind == "principal_axes" else 1)
    if stage.compensates:  # both networks run, and the fits take about as long as both
        once += 4 * per_sample * COMPENSATION_SAMPLES
    regrow = None if stage.regrow is None else stage.regrow.build()
    if regrow is not None and isinstance(regrow.samples, int):
        choice += step * regrow.samples / setting.batch_size
    return once + choices * choice


def _seconds_of_rivals(recipe: schema.Recipe, stages: Sequence[PlannedStage], evaluation: float) -> float:
    """As if the small networks were as slow as the one with masks."""
    timed = [stage for stage in stages if stage["steps"]]
    if not (recipe.rivals.scratch and timed):
        return 0.0
    epoch = max(stage["seconds"]["training"] / stage["steps"] * stage["steps_per_epoch"] for stage in timed)
    lengths: tuple[ScratchLength, ...] = get_args(ScratchLength)
    parts = [parts_of(recipe, length) for length in lengths]
    return sum(part.settings.epochs * epoch for found in parts for part in found) + (len(parts) + 1) * evaluation


def _measured(network: nn.Module, setting: Setting, now: Now) -> tuple[measuring.Sample, Compared, float]:
    """(the network on a part of the test data, beside a constant output; seconds of an evaluation on all of them)."""
    batches = setting.data.batches("test", EVALUATION_BATCH, setting.task, setting.device)
    beside = Compared(setting.task, constant_output(network, setting))
    # The libraries of some metrics take seconds to import, once.
    metrics.evaluate(network, lambda: islice(batches(), 1), setting.task, partial=True)
    start = now()
    found = measuring.sample(network, setting)
    seconds = (now() - start) / min(measuring.BATCHES, len(batches)) * len(batches)
    measuring.sample(network, setting, beside)
    return found, beside, seconds
