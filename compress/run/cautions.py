"""What a recipe will do that its author may not expect, said before the training where it can be known.

`compress plan` and `compress apply` warn of the same. Widths are looked at again after a stage, since a removal may
choose others during the training.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from compress.data.loaders import Loaders
from compress.errors import UnsupportedModelError
from compress.evaluation_mode import evaluation_mode
from compress.graph.coupling import Coupling, Couplings
from compress.recipe import schema
from compress.remove.removals import Gradual, GradualSoft, Removal
from compress.results import Warned, WarningKind
from compress.run.entries import kind_of
from compress.run.rehearsed import Rehearsed
from compress.run.setting import Setting
from compress.run.widths import Widths
from compress.run_warnings import RunWarning, entry
from compress.select.pruned import Pruned
from compress.slimming.shrink import dead_in
from compress.tasks import prediction, word_of
from compress.tasks.targets import class_logits
from compress.wording import count_of

LOSS = 0.9
"""The share of a layer's nodes or weights whose loss is warned of."""

STEPS = 20
"""Optimizer steps that a decay should take at least."""

LISTED = 5
"""Layers that a warning names."""

LocationOf = Callable[[str], str]
"""Where a key of the recipe, such as "stages.0.target", was written, for messages."""


class NoEffectWarning(RunWarning):
    """A stage or a removal that does not do what it seems to intend."""

    kind = "no_effect"


class LayerLossWarning(RunWarning):
    """A layer that keeps less than a tenth."""

    kind = "layer_loss"


class BottleneckWarning(RunWarning):
    """A width below the number of classes, or below the next bottleneck."""

    kind = "bottleneck"


class ShortDecayWarning(RunWarning):
    """A decay of a few steps, which is nearly hard removal."""

    kind = "short_decay"


class LateDecayWarning(RunWarning):
    """A removal after which nothing trains."""

    kind = "late_decay"


class ShortRetrainingWarning(RunWarning):
    """A retraining with fewer steps than the network has layers."""

    kind = "short_retraining"


class LargeBatchWarning(RunWarning):
    """A batch that is larger than the training data."""

    kind = "large_batch"


OF_WIDTHS: tuple[WarningKind, ...] = (LayerLossWarning.kind, BottleneckWarning.kind)
"""The kinds that are known for certain only after a stage."""


def warn_of_stage(found: Rehearsed, network: nn.Module, setting: Setting, pruned: Pruned, place: LocationOf) -> None:
    """Warn of what a rehearsed stage will do.

    Args:
        network: rehearsed, so that what is pruned is zero.
        pruned: what this stage and earlier ones have pruned.
    """
    for warning in (
        *_of_effect(found),
        *_of_duration(found, network),
        *_of_batches(found.stage, found.number, setting),
        *_of_weights(found),
        *of_widths(found.stage, found.number, _before(found), pruned, network, setting),
    ):
        _say(warning, place)


def _say(warning: RunWarning, place: LocationOf = str) -> None:
    warnings.warn(warning.at(place), stacklevel=4)


# --- stages ---


def _of_effect(found: Rehearsed) -> Iterator[RunWarning]:
    at, stage = f"stages.{found.number}", found.stage
    things = {"weights": "entries"}.get(kind := kind_of(stage.target), kind)
    measure = stage.level[0] if stage.layers is None else "layers"
    if not found.pruned:
        yield NoEffectWarning(
            f"{at}.{measure}: {found.asked:g} of {found.of:,} {things} rounds to 0, so this stage prunes nothing",
            "ask for more",
            f"{at}.{measure}",
        )
    elif found.pruned == sum(matched.earlier for matched in found.matched):
        yield NoEffectWarning(
            f"{at}.target: all {found.pruned:,} {things} of this stage were already pruned by an "
            f"earlier one ({measure} refers to the original network, stages do not add up)",
            "ask for more, or remove it",
            f"{at}.target",
        )
    how = found.removal
    ramp = how.ramp if isinstance(how, GradualSoft) else how.length
    if isinstance(how, Gradual | GradualSoft) and how.every >= ramp:
        yield NoEffectWarning(
            f"{at}.removal: the set grows every {count_of(how.every, 'step')} and has to be complete after "
            f"{ramp:,}: everything is pruned at once",
            "set a smaller `every`, or retrain for longer",
            f"{at}.removal",
        )


def _of_duration(found: Rehearsed, network: nn.Module) -> Iterator[RunWarning]:
    at, steps = f"stages.{found.number}", found.steps
    if not steps:
        return
    if found.removal.length >= steps:
        yield LateDecayWarning(
            f"{at}.removal: the removal ends with the last of the {count_of(steps, 'step')}, and no training follows",
            "retrain for longer, or set a shorter `over`",
            f"{at}.removal",
        )
    if 0 < (length := decay_steps(found.removal)) < STEPS:
        yield ShortDecayWarning(
            f"{at}.removal: the decay takes {count_of(length, 'optimizer step')}, and below {STEPS} "
            "it is nearly hard removal",
            "set a longer `over`, train in smaller batches or for more epochs, or use removal: hard",
            f"{at}.removal",
        )
    if steps < (layers := len(layers_of(network))):
        yield ShortRetrainingWarning(
            f"{at}.retrain: the retraining has {count_of(steps, 'optimizer step')} for {layers} layers",
            "retrain for more epochs, or in smaller batches",
            f"{at}.retrain",
        )


def decay_steps(removal: Removal) -> int:
    """Steps in which an entry decays; 0 where entries are cut at once."""
    if isinstance(removal, GradualSoft):
        return removal.decaying
    return removal.length if removal.together else 0


def layers_of(network: nn.Module) -> list[str]:
    """The layers with matrices or kernels, by name."""
    owned = ((name, module.parameters(recurse=False)) for name, module in network.named_modules())
    return [name for name, parameters in owned if any(parameter.ndim > 1 for parameter in parameters)]


def warn_of_batch(setting: Setting) -> None:
    """Warn of a training in batches that are larger than the data."""
    for warning in of_batch_size(setting.batch_size, "data.batch_size", setting):
        _say(warning)


def _of_batches(stage: schema.Stage, number: int, setting: Setting) -> Iterator[RunWarning]:
    if stage.retrain is not None and stage.retrain.epochs:
        own = stage.retrain.batch_size is not None
        key = f"stages.{number}.retrain.batch_size" if own else "data.batch_size"
        yield from of_batch_size(stage.retrain.batch_size or setting.batch_size, key, setting)


def of_batch_size(size: int, key: str, setting: Setting) -> Iterator[RunWarning]:
    """Of a batch that is larger than the training data; a user's loaders define their own batches."""
    count = None if isinstance(setting.data, Loaders) else setting.data.count("train")
    if count is not None and size > count:
        yield LargeBatchWarning(
            f"{key}: a batch of {size:,} is larger than the training data, which have "
            f"{count_of(count, 'sample')}: an epoch is a single step",
            f"set a `batch_size` below {count:,}",
            key,
        )


# --- widths ---


def _before(found: Rehearsed) -> Mapping[str, int]:
    """Of the stage's couplings, how many nodes were left before it."""
    return {matched.name: matched.of - matched.earlier for matched in found.matched if matched.layers}


def _of_weights(found: Rehearsed) -> Iterator[RunWarning]:
    """Of tensors that lose more than 90 % of their weights where less than that was asked of all."""
    if not isinstance(found.stage.target, schema.Weights) or found.asked >= LOSS:
        return
    lost = [(one.name, one.of, one.of - one.goes) for one in found.matched if one.goes > LOSS * one.of > LOSS]
    if lost:
        yield LayerLossWarning(
            f"stages.{found.number}.target: {_many(lost, 'tensor')} more than {LOSS:.0%} of the weights, "
            f"and {found.asked:.0%} were asked of all: {_listed(lost)}",
            "raise `min_keep`, or use scope: layer or erk",
            f"stages.{found.number}.target",
        )


def of_widths(
    stage: schema.Stage,
    number: int,
    before: Mapping[str, int],
    pruned: Pruned,
    network: nn.Module,
    setting: Setting,
) -> Iterator[RunWarning]:
    """Of the widths that a stage leaves.

    Args:
        before: of the couplings that the stage targets, how many nodes were left before it.
        pruned: what this stage and earlier ones have pruned.
    """
    known = setting.couplings(network)
    left = {coupling: _left(coupling, pruned) for coupling in known.found}
    changed = {one: before[one.name] for one in known.found if left[one] < before.get(one.name, 0)}
    if not changed:
        return
    at = f"stages.{number}"
    lost = [(one.name, one.size, left[one]) for one in changed if one.size - left[one] > LOSS * one.size]
    if lost:
        asked = stage.level[0] == "sparsity" and stage.scope in (None, "layer")
        yield LayerLossWarning(
            f"{at}.target: {_many(lost, 'layer')} more than {LOSS:.0%} of the nodes: {_listed(lost)}",
            "prune less of them" if asked else "raise `min_keep`, prune less, or use scope: layer",
            f"{at}.target",
        )
    yield from _below_classes(changed, left, _classes(network, setting), f"{at}.target")
    yield from _below_bottlenecks(known, changed, left, f"{at}.target")


def look_again(
    stage: schema.Stage,
    number: int,
    earlier: Pruned,
    pruned: Pruned,
    network: nn.Module,
    setting: Setting,
    place: LocationOf,
    warned: list[Warned],
) -> None:
    """Warn of the widths that a stage has left, in the place of what its rehearsal said of them.

    Args:
        earlier, pruned: what was pruned before the stage, and after it.
        warned: the warnings so far; those that no longer hold are removed.
    """
    if isinstance(stage.target, schema.Weights):
        return
    before = {one.name: _left(one, earlier) for one in pruned.keep_nodes}
    found = list(of_widths(stage, number, before, pruned, network, setting))
    certain, at = [entry(warning) for warning in found], f"stages.{number}."
    warned[:] = [
        one
        for one in warned
        if one["kind"] not in OF_WIDTHS or not one.get("where", "").startswith(at) or one in certain
    ]
    for warning in found:
        _say(warning, place)


def _below_classes(
    changed: Mapping[Coupling, int], left: Mapping[Coupling, int], classes: int, key: str
) -> Iterator[RunWarning]:
    low = [(one.name, one.size, left[one]) for one, was in changed.items() if left[one] < classes <= was]
    if classes > 2 and low:
        yield BottleneckWarning(
            f"{key}: {_many(low, 'layer', 'keeps', 'keep')} fewer nodes than there are classes ({classes:,}): "
            f"{_listed(low)}",
            f"set `min_keep: {classes}`, or prune less",
            key,
        )


def _below_bottlenecks(
    known: Couplings, changed: Mapping[Coupling, int], left: Mapping[Coupling, int], key: str
) -> Iterator[RunWarning]:
    """Of widths that are smaller now than a bottleneck that all they compute passes through."""
    was = {coupling: changed.get(coupling, left[coupling]) for coupling in known.found}
    widths = Widths(known, was)
    narrow = [one for one in known.found if widths.is_bottleneck(one)]
    low: dict[Coupling, Coupling] = {}
    for one in changed:
        later = [other for other in narrow if was[one] >= was[other] and left[one] < left[other]]
        passed = [other for other in later if widths.all_pass(one, other)]
        if passed:
            low[one] = max(passed, key=lambda other: left[other])
    if low:
        widest = max(low.values(), key=lambda other: left[other])
        yield BottleneckWarning(
            f"{key}: {_many(list(low), 'layer', 'keeps', 'keep')} fewer nodes than the bottleneck that follows "
            f"({widest.name}: {left[widest]:,}): {_listed((one.name, one.size, left[one]) for one in low)}",
            f"set `min_keep: {left[widest]}`, or prune less",
            key,
        )


def _classes(network: nn.Module, setting: Setting) -> int:
    """The classes between which the network decides; 0 for other tasks."""
    if word_of(setting.task) != "classify":
        return 0
    with evaluation_mode(network):
        return class_logits(prediction(setting.example.call(network))).shape[1]


def _left(coupling: Coupling, pruned: Pruned) -> int:
    keep: Tensor | None = pruned.keep_nodes.get(coupling)
    return coupling.size if keep is None else int(keep.count_nonzero())


def _many(found: Sequence[object], what: str, one: str = "loses", several: str = "lose") -> str:
    return f"{len(found)} {what} {one}" if len(found) == 1 else f"{len(found)} {what}s {several}"


def _listed(found: Iterable[tuple[str, int, int]]) -> str:
    """Names with their sizes before and after."""
    every = [f"{name} ({of:,} to {left:,})" for name, of, left in found]
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more


# --- the whole network ---


def warn_if_nothing_is_cut(network: nn.Module, setting: Setting) -> None:
    """Warn where the slim network of a rehearsed one would be as large."""
    zeros = sum(parameter.numel() - int(parameter.count_nonzero()) for parameter in network.parameters())
    why = "every node of every layer still has weights"
    try:
        if dead_in(network, setting.couplings(network)):
            return
    except UnsupportedModelError as error:
        why = str(error).rstrip(".")
    _say(
        NoEffectWarning(
            f"nothing can be cut out: {why}, as far as can be known before training; {count_of(zeros, 'zero')} would "
            "be left, and the slim network is as large as the dense one",
            "prune nodes, or more of the weights",
        )
    )
