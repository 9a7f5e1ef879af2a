"""One stage of a recipe on a model in memory: choose, remove while retraining, and leave exact zeros."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from compress.errors import InputError, RunError
from compress.graph.coupling import couplings
from compress.recipe import schema
from compress.remove.pruner import Pruner, Removal
from compress.results import Metric, StageFigures, StageResult, Taken
from compress.run.choice import Choice, Pruned
from compress.run.curve import Curve
from compress.run.entries import taken
from compress.run.node_choice import NodeChoice, choose_within, even_scores
from compress.run.removals import schedule
from compress.run.setting import Setting, optimization
from compress.run.weight_choice import WeightChoice, going
from compress.select.targets import resolve
from compress.train.distill import Teacher
from compress.train.loop import Training, only_trainable


def run_stage(model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> StageResult:
    """Prune `model` in place as `stage` says; afterwards what was chosen is exactly zero and names are plain.

    Args:
        number: the stage's place in the recipe, from 0.
        pruned: what earlier stages took; this stage adds its own.

    Returns:
        The stage's entry of results.json.

    Raises:
        InputError: targets that do not exist, or a decay that is longer than the retraining.
        DivergedError: see `compress.train.loop.train`.
        RunError: what is gone is not what was asked for.
    """
    with setting.journal.notes():
        return _run_stage(model, stage, number, pruned, in_batches_of(stage, setting))


def _run_stage(model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> StageResult:
    steps, removal = schedule(stage, setting.steps_per_epoch)
    teacher = teacher_of(model, stage, pruned)
    training, curve, journal = Training(), Curve(steps), setting.journal

    def before_removal(step: int) -> Metric:
        found = setting.evaluate(model)
        setting.watcher.measured("before_removal", found, step)
        return found

    if removal.steps == 0:
        journal.note("before_removal", lambda: before_removal(0))
    earlier = journal.note("trained_before", lambda: setting.clock.spent("training"))
    with setting.clock.phase("selection"):
        chosen = choice_of(model, stage, number, pruned, setting)
        if stage.compensate:
            journal.note("compensated", lambda: chosen.compensate(stage.goes))
    with only_trainable(model, trainable_of(stage, chosen)):
        pruner = _pruner(model, stage, chosen, removal, setting)
        journal.follow("curve", curve)

        def after_step(step: int) -> None:
            if pruner.removes_next:
                pruner.hold()
                journal.note("before_removal", lambda: before_removal(step))
            pruner.step()

        if steps and stage.retrain is not None:
            how = optimization(stage.retrain)
            training = setting.train(model, steps, how, after_step, teacher, pruner, curve.add)
        pruner.finalize()
    earlier_ones = bool(pruned.keep)
    chosen.settle()
    _require_as_asked(model, stage, chosen, earlier_ones)
    after = setting.evaluate(model)
    setting.watcher.measured("after_removal", after, training.steps)
    figures: StageFigures = {}
    if training.steps:
        figures["curve"] = curve.document()
    if chosen.histograms:
        figures["scores"] = chosen.histograms
    return {
        **_taken(stage, chosen),
        "before_removal": journal.noted("before_removal"),
        "after_removal": after,
        "steps": training.steps,
        "removal_steps": removal.steps,
        "epoch_losses": training.losses,
        **figures,
        "seconds": setting.clock.spent("training") - earlier,
    }


def _pruner(model: nn.Module, stage: schema.Stage, chosen: Choice, removal: Removal, setting: Setting) -> Pruner:
    """What takes the chosen entries away; where the run is gone on with, it stands as it stood."""
    journal = setting.journal
    with setting.clock.phase("selection"):
        pruner = Pruner(
            model,
            chosen.paths,
            stage.goes,
            removal=removal,
            chooser=chosen,
            mask_gradients=masks_gradients(stage, removal),
            start=not journal.has("pruner"),
        )
    journal.follow("choice", chosen)
    journal.follow("masked model", model, instead_of="model")
    journal.follow("pruner", pruner)
    return pruner


def _taken(stage: schema.Stage, chosen: Choice) -> Taken:
    count, total = chosen.count
    return taken(stage, describe_target(stage), asked=chosen.asked, achieved=chosen.achieved, pruned=count, of=total)


def _require_as_asked(model: nn.Module, stage: schema.Stage, chosen: Choice, earlier_ones: bool) -> None:
    """What the results will say of the stage is true of the weights.

    Raises:
        RunError: something that was to go is not exactly zero, or more or less goes than the recipe asks for.
    """
    if alive := chosen.left_alive(model):
        raise RunError(f"{describe_target(stage)}: {alive:,} entries that were to go are not zero after the removal")
    measure, asked = stage.level[0], chosen.asked
    count, expected = chosen.count[0], chosen.expected
    if measure != "sparsity":
        kept = chosen.achieved <= asked
    else:  # what earlier stages took stays gone, and may be more
        kept = expected is None or count == expected or (earlier_ones and count > expected)
    if not kept:
        raise RunError(
            f"{describe_target(stage)}: {measure} {asked:g} was asked for and {chosen.achieved:.6g} is reached; "
            "no results are written"
        )


def masks_gradients(stage: schema.Stage, removal: Removal) -> bool:
    """Whether what pruned entries learn could reach others, or themselves once they are out of the set again."""
    come_back = removal.cohorts or stage.regrow is not None
    return come_back or (stage.retrain is not None and not optimization(stage.retrain).elementwise)


def check_stage(
    model: nn.Module,
    stage: schema.Stage,
    number: int,
    setting: Setting,
    place: Callable[[str], str] = str,
    pruned: Pruned | None = None,
) -> int:
    """Find out before any time is spent whether the stage can be run on this network.

    Args:
        place: where a key of the recipe, such as "stages.0.target", was written, for the error text.
        pruned: how many nodes earlier stages will take, if not which; this stage adds its own.

    Returns:
        How many of its entries or nodes will go.

    Raises:
        InputError: its decay is too slow, or its targets or trainable parameters do not exist or cannot be pruned.
    """
    setting = in_batches_of(stage, setting)
    with told_at(place(f"stages.{number}.removal")):
        schedule(stage, setting.steps_per_epoch)
    with told_at(place(f"stages.{number}.{'target' if stage.layers is None else 'layers'}")):
        if isinstance(stage.target, schema.Nodes):
            count = _going_nodes(model, stage, setting, pruned or Pruned())
        else:
            count = _going(model, stage)
    if stage.retrain is not None and not isinstance(stage.retrain.trainable, str):
        with told_at(place(f"stages.{number}.retrain.trainable")), only_trainable(model, stage.retrain.trainable):
            pass
    return count


def _going(model: nn.Module, stage: schema.Stage) -> int:
    assert isinstance(stage.target, schema.Weights)
    return going(resolve(model, stage.target.weights, bias=stage.target.bias), stage)


def _going_nodes(model: nn.Module, stage: schema.Stage, setting: Setting, pruned: Pruned) -> int:
    """As many as if the scores of all widths were alike, which is as good a guess as any."""
    assert isinstance(stage.target, schema.Nodes)
    known = couplings(model, setting.example)
    scores = even_scores(known.matching(stage.target.nodes))
    keep = choose_within(known, scores, stage, stage.goes, pruned.keep_nodes)
    pruned.keep_nodes |= keep
    return sum(int((~nodes).sum()) for nodes in keep.values())


@contextmanager
def told_at(place: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(f"{place}: {error}") from error


def describe_target(stage: schema.Stage) -> str:
    target = stage.target
    if isinstance(target, schema.Nodes):
        return ", ".join(target.nodes)
    return ", ".join(target.weights) + (" with biases" if target.bias else "")


def choice_of(model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> Choice:
    """What the stage takes. Raises TargetError and UnsupportedModelError: targets that do not exist or cannot go."""
    kind = NodeChoice if isinstance(stage.target, schema.Nodes) else WeightChoice
    return kind(model, stage, number, pruned, setting)


def in_batches_of(stage: schema.Stage, setting: Setting) -> Setting:
    wanted = None if stage.retrain is None else stage.retrain.batch_size
    return setting if wanted is None else dataclasses.replace(setting, batch_size=wanted)


def trainable_of(stage: schema.Stage, chosen: Choice) -> Sequence[str]:
    wanted = "all" if stage.retrain is None else stage.retrain.trainable
    if wanted == "all":
        return ["*"]
    return chosen.adjacent if wanted == "adjacent" else list(wanted)


def teacher_of(model: nn.Module, stage: schema.Stage, pruned: Pruned) -> Teacher | None:
    if stage.retrain is None or stage.retrain.distill is None:
        return None
    wanted = stage.retrain.distill
    dense = pruned.dense() if pruned.dense else copy.deepcopy(model)
    return Teacher(dense, wanted.weight, wanted.temperature)
