"""Run one stage of a recipe on a model in memory: choose, remove during retraining, and leave exact zeros."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice

import torch
from torch import nn

from compress.data.attributes import classes_of
from compress.errors import InputError, RunError
from compress.graph.twin import copied
from compress.recipe import schema
from compress.remove.pruner import Pruner
from compress.remove.removals import Removal
from compress.results import Metric, StageFigures, StageResult, Taken
from compress.run.curve import Curve
from compress.run.entries import taken
from compress.run.pruning import (
    in_batches_of,
    pruner_of,
    removal_of,
    sketch,
    sketch_of_nodes,
    stage_selection,
    target_of,
)
from compress.run.setting import Setting, optimization
from compress.select.branch_selection import BranchSelection
from compress.select.choose import LayerCollapseWarning
from compress.select.node_selection import NodeSelection
from compress.select.pruned import Pruned
from compress.select.selection import Selection
from compress.select.targets import describe
from compress.train.distill import Teacher
from compress.train.latents import Latent, codes, latent_layer
from compress.train.loop import TrainingRecord, only_trainable
from compress.train.recalibrate import calibrated, recalibrate
from compress.train.shaping import Shaping


def run_stage(model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> StageResult:
    """Prune `model` in place as `stage` says; afterwards pruned entries are exactly zero and names are plain.

    Args:
        number: the stage's place in the recipe, from 0.
        pruned: the entries pruned by earlier stages; this stage adds its own.

    Returns:
        The stage's entry of results.json.

    Raises:
        InputError: a target does not exist, or the decay is longer than the retraining.
        DivergedError: see `compress.train.loop.train`.
        RunError: the result differs from what the recipe asks for.
    """
    with setting.journal.notes(), quiet_about_nodes(stage):
        return _run_stage(model, stage, number, pruned, in_batches_of(stage, setting))


def _run_stage(model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> StageResult:
    steps, removal = removal_of(stage, setting.steps_per_epoch)
    teacher = teacher_of(model, stage, setting)
    training, curve, journal = TrainingRecord(), Curve(steps), setting.journal
    figures: StageFigures = {}

    def before_removal(step: int) -> Metric:
        found = setting.evaluate(model)
        setting.watcher.measured("before_removal", found, step)
        return found

    if removal.length == 0:
        journal.note("before_removal", lambda: before_removal(0))
    earlier = journal.note("trained_before", lambda: setting.clock.spent("training"))
    pruner = _pruner(model, stage, number, pruned, removal, setting)
    trainable = trainable_of(stage, pruner.selection)
    with only_trainable(model, trainable), shaping_of(stage, number, pruner, setting) as shaping:
        journal.follow("curve", curve)
        if shaping is not None:
            figures["latent"] = shaping.layer
            journal.follow("shaping", shaping)

        def after_step(step: int) -> None:
            if shaping is not None:
                shaping.step()
            if pruner.removes_next:
                pruner.hold()
                journal.note("before_removal", lambda: before_removal(step))
            pruner.step()

        if steps and stage.retrain is not None:
            how = optimization(stage.retrain)
            training = setting.train(model, steps, how, after_step, teacher, pruner, curve.add, shaping)
        pruner.finalize()
    chosen, earlier_ones = pruner.selection, bool(pruned.keep)
    chosen.add_to(pruned)
    _require_as_asked(model, stage, chosen, earlier_ones)
    _recalibrate(model, stage, setting)
    after = setting.evaluate(model)
    setting.watcher.measured("after_removal", after, training.steps)
    if training.steps:
        figures["curve"] = curve.document()
    if isinstance(chosen, BranchSelection):
        figures["branches"] = [name for name, gone in chosen.pruned_in.items() if gone]
    if chosen.histograms:
        figures["scores"] = chosen.histograms
    return {
        **_chosen(stage, chosen),
        "before_removal": journal.noted("before_removal"),
        "after_removal": after,
        "steps": training.steps,
        "removal_steps": removal.length,
        "epoch_losses": training.losses,
        **figures,
        "seconds": setting.clock.spent("training") - earlier,
    }


def _recalibrate(model: nn.Module, stage: schema.Stage, setting: Setting) -> None:
    """Estimate the statistics of norms for what reaches them now, where the stage wants it."""
    if stage.recalibrates and calibrated(model):
        with setting.clock.phase("recalibration"):
            chance = torch.Generator().manual_seed(setting.seed)
            recalibrate(model, lambda size: setting.data.batches("train", size, setting.task, setting.device)(chance))


def _pruner(
    model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, removal: Removal, setting: Setting
) -> Pruner:
    """The stage's pruner; a resumed run restores its state."""
    journal = setting.journal
    with setting.clock.phase("selection"):
        pruner = pruner_of(model, stage, number, pruned, setting, removal, start=not journal.has("pruner"))
    journal.follow("masked model", model, instead_of="model")
    journal.follow("pruner", pruner)
    return pruner


def _chosen(stage: schema.Stage, chosen: Selection) -> Taken:
    """What was pruned, how, and how much."""
    count, total = chosen.count
    return taken(stage, describe_target(stage), asked=chosen.asked, achieved=chosen.achieved, pruned=count, of=total)


def _require_as_asked(model: nn.Module, stage: schema.Stage, chosen: Selection, earlier_ones: bool) -> None:
    """Check that the weights agree with what the results will say about the stage.

    Raises:
        RunError: a chosen entry is not exactly zero, or more or less was pruned than the recipe asks for.
    """
    if alive := chosen.left_alive(model):
        raise RunError(f"{describe_target(stage)}: {alive:,} pruned entries are not zero after the removal")
    measure, asked = stage.level[0], chosen.asked
    count, expected = chosen.count[0], chosen.expected
    if measure != "sparsity":
        kept = chosen.achieved <= asked
    else:  # entries of earlier stages remain pruned, and may be more
        kept = expected is None or count == expected or (earlier_ones and count > expected)
    if not kept:
        raise RunError(
            f"{describe_target(stage)}: {measure} {asked:g} was requested and {chosen.achieved:.6g} reached; "
            "no results are written"
        )


def check_stage(
    model: nn.Module,
    stage: schema.Stage,
    number: int,
    setting: Setting,
    place: Callable[[str], str] = str,
    pruned: Pruned | None = None,
) -> int:
    """Check before any time is spent that the stage can be run on this network.

    Args:
        place: where a key of the recipe, such as "stages.0.target", was written, for the error text.
        pruned: the nodes (only their number counts) and branches that earlier stages will prune; this stage adds its
            own.

    Returns:
        The number of entries or nodes to prune.

    Raises:
        InputError: the decay is too slow, or targets or trainable parameters do not exist or cannot be pruned.
    """
    setting = in_batches_of(stage, setting)
    with told_at(place(f"stages.{number}.removal")):
        removal_of(stage, setting.steps_per_epoch)
    with told_at(place(f"stages.{number}.{'target' if stage.layers is None else 'layers'}")):
        count = _count(model, stage, number, setting, pruned or Pruned())
    if stage.retrain is not None and not isinstance(stage.retrain.trainable, str):
        with told_at(place(f"stages.{number}.retrain.trainable")), only_trainable(model, stage.retrain.trainable):
            pass
    if stage.shape is not None:
        with told_at(place(f"stages.{number}.shape")):
            _check_shape(model, stage, number, setting)
    if stage.recalibrate and not calibrated(model):
        why = "the network has no norm with running statistics that is not frozen; remove the key"
        raise InputError(f"{place(f'stages.{number}.recalibrate')}: {why}")
    return count


def _check_shape(model: nn.Module, stage: schema.Stage, number: int, setting: Setting) -> None:
    """Check that the data have the attributes, and that the target is one layer with outputs [N, nodes]."""
    classes = classes_of(setting.data, attributes_of(stage))
    if setting.ranks.count > 1:
        raise InputError("heads and adversaries learn in one process; run without torchrun, or remove the key")
    layer = latent_layer(sketch_of_nodes(model, stage, number, Pruned(), setting))
    given = setting.data.batches("train", 2, setting.task, setting.device, attributes=tuple(classes))()
    codes(model, layer, islice(given, 1))


def attributes_of(stage: schema.Stage) -> tuple[str, ...]:
    """The attributes that the stage keeps in its latent space or drops from it."""
    return () if stage.shape is None else (*stage.shape.keep, *stage.shape.drop)


def shaping_of(
    stage: schema.Stage, number: int, latent: Pruner | Latent | None, setting: Setting
) -> AbstractContextManager[Shaping | None]:
    """The terms that the stage's `shape` adds to the loss of its retraining; None without it."""
    if stage.shape is None or latent is None:
        return nullcontext()
    classes = classes_of(setting.data, attributes_of(stage))
    return Shaping(latent, keep=stage.shape.keep, drop=stage.shape.drop, classes=classes, seed=setting.seed + number)


def _count(model: nn.Module, stage: schema.Stage, number: int, setting: Setting, pruned: Pruned) -> int:
    if isinstance(stage.target, schema.Weights):
        return stage_selection(model, stage, number, Pruned(), setting).expected or 0
    chosen = sketch(model, stage, number, pruned.copy(), setting)
    chosen.choose_now()
    if isinstance(chosen, NodeSelection):
        pruned.keep_nodes.update(chosen.kept_nodes)
    else:
        chosen.add_to(pruned)
    return sum(chosen.pruned_in.values())


def quiet_about_nodes(stage: schema.Stage) -> AbstractContextManager[None]:
    """Layers that lose their nodes are warned of by their widths, and not by every tensor besides."""
    if isinstance(stage.target, schema.Weights):
        return nullcontext()
    return warnings.catch_warnings(action="ignore", category=LayerCollapseWarning)


@contextmanager
def told_at(place: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(f"{place}: {error}") from error


def describe_target(stage: schema.Stage) -> str:
    return describe(target_of(stage))


def trainable_of(stage: schema.Stage, chosen: Selection) -> Sequence[str]:
    """Patterns of the parameters that train."""
    wanted = "all" if stage.retrain is None else stage.retrain.trainable
    if wanted == "all":
        return ["*"]
    return chosen.adjacent if wanted == "adjacent" else list(wanted)


def teacher_of(model: nn.Module, stage: schema.Stage, setting: Setting) -> Teacher | None:
    """The dense network as teacher; if the run has none, a copy of `model` in its current state."""
    if stage.retrain is None or stage.retrain.distill is None:
        return None
    wanted = stage.retrain.distill
    dense = setting.dense() if setting.dense else copied(model)
    return Teacher(dense, wanted.weight, wanted.temperature)
