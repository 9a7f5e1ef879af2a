"""Rehearse every stage before the run, without training: select on the current network, cut at once, and check.

`compress apply` rehearses before it spends time on training, and `compress plan` shows the result: both refuse and
warn of the same things.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from compress.errors import NothingPrunedError, UnsupportedModelError
from compress.graph.coupling import Coupling
from compress.graph.flow import layer_of
from compress.recipe import schema
from compress.remove.removals import Gradual, GradualSoft, Hard, Removal
from compress.remove.remover import Remover
from compress.run.journal import Journal
from compress.run.pruning import in_batches_of, removal_of, sketch, stage_selection
from compress.run.setting import Setting
from compress.run.stage import check_stage, told_at, trainable_of
from compress.select.node_selection import NodeSelection
from compress.select.pruned import Pruned
from compress.select.selection import Selection
from compress.select.weight_selection import WeightSelection
from compress.slimming.shrink import cuttable
from compress.wording import count_of

SAMPLES = 250
"""Training samples for a criterion in a rehearsal: enough for a rough selection, and fast."""

LocationOf = Callable[[str], str]
"""Where a key of the recipe, such as "stages.0.target", was written, for messages."""


class PlanWarning(UserWarning):
    """A recipe that can be run, but will not do what it seems to intend."""


@dataclass(frozen=True)
class Matched:
    """One parameter, or the nodes of one layer with everything coupled to them.

    goes: entries or nodes that are pruned after the stage, `earlier` of them by an earlier stage.
    layers: all layers that compute the nodes.
    """

    name: str
    of: int
    goes: int
    earlier: int
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rehearsed:
    """What a stage would do.

    samples: training samples that the criterion used here; `wanted` is the number in the stage. None: it uses none.
    even: the nodes were chosen by even scores instead of the criterion's scores, which would take too long.
    paths: all parameters with masks, earlier stages' included. trainable: patterns of the parameters that train.
    analysis_seconds, choice_seconds: how long the stage's preparation and its choice took.
    """

    number: int
    stage: schema.Stage
    steps: int
    steps_per_epoch: int
    removal: Removal
    matched: tuple[Matched, ...]
    asked: float
    achieved: float
    samples: int | None
    wanted: int | None
    even: bool
    paths: Sequence[str]
    trainable: Sequence[str]
    analysis_seconds: float
    choice_seconds: float

    @property
    def pruned(self) -> int:
        return sum(found.goes for found in self.matched)

    @property
    def of(self) -> int:
        return sum(found.of for found in self.matched)


def check(recipe: schema.Recipe, model: nn.Module, setting: Setting, place: LocationOf = str) -> None:
    """Rehearse all stages on `model`, which is useless afterwards, only for the errors and warnings.

    Raises:
        InputError, NothingPrunedError: see `rehearse`.
    """
    for _ in rehearse(recipe, model, Pruned(), setting, place):
        pass


def rehearse(
    recipe: schema.Recipe,
    network: nn.Module,
    pruned: Pruned,
    setting: Setting,
    place: LocationOf = str,
    now: Callable[[], float] = time.perf_counter,
) -> Iterator[Rehearsed]:
    """Yield what each stage would do, after applying it to `network`: its chosen entries are zero then.

    Warns with PlanWarning and LayerCollapseWarning of anything without effect. The global random state is left
    unchanged.

    Args:
        pruned: the entries pruned by all stages so far; each adds its own.
        now: the time in seconds.

    Raises:
        InputError: a stage cannot be run, with the key that prevents it; all stages are checked before the first is
            rehearsed.
        UnsupportedModelError: the network cannot be slimmed.
        NothingPrunedError: no entry would be pruned.
    """
    setting.couplings(network)  # a network that cannot be traced cannot be slimmed after the training either
    sketch = Pruned()
    counts = [check_stage(network, stage, number, setting, place, sketch) for number, stage in enumerate(recipe.stages)]
    if not any(counts):
        raise NothingPrunedError(
            "no entry would be pruned: at a sparsity this low, round(sparsity * n) is 0; ask for a larger one"
        )
    for number, stage in enumerate(recipe.stages):
        with torch.random.fork_rng([setting.device] if setting.device.type == "cuda" else []):
            found = _rehearse(network, stage, number, pruned, setting, place, now)
        _warn(found, place)
        yield found
    _warn_if_nothing_is_cut(network, setting)


def _rehearse(
    network: nn.Module,
    stage: schema.Stage,
    number: int,
    pruned: Pruned,
    setting: Setting,
    place: LocationOf,
    now: Callable[[], float],
) -> Rehearsed:
    setting = replace(in_batches_of(stage, setting), journal=Journal())  # a rehearsal is not part of the run
    steps, removal = removal_of(stage, setting.steps_per_epoch)
    earlier = pruned.copy()
    short, samples, wanted = _with_fewer_samples(stage, setting)
    even = stage.criterion.kind == "ablation"
    start = now()
    with told_at(place(f"stages.{number}")):
        make = sketch if even else stage_selection
        chosen = make(network, short, number, pruned, setting)
        ready = now()
        remover = Remover(network, chosen.paths, chosen, chosen.target_share, Hard())
    remover.finalize()
    chosen.add_to(pruned)
    end = now()
    return Rehearsed(
        number,
        stage,
        steps,
        setting.steps_per_epoch,
        removal,
        _matched(chosen, pruned, earlier),
        chosen.asked,
        chosen.achieved,
        None if even else samples,
        wanted,
        even,
        chosen.paths,
        trainable_of(stage, chosen),
        ready - start,
        end - ready,
    )


def _with_fewer_samples(stage: schema.Stage, setting: Setting) -> tuple[schema.Stage, int | None, int | None]:
    """(the stage with a criterion that uses few samples, their number, the number in the stage)."""
    samples = getattr(stage.criterion, "samples", None)
    if samples is None:
        return stage, None, None
    count = setting.data.count("train")
    wanted = count if samples == "all" else samples if count is None else min(samples, count)
    few = SAMPLES if wanted is None else min(SAMPLES, wanted)
    criterion = stage.criterion.model_copy(update={"samples": few})
    return stage.model_copy(update={"criterion": criterion}), few, wanted


def _matched(chosen: Selection, pruned: Pruned, earlier: Pruned) -> tuple[Matched, ...]:
    if isinstance(chosen, NodeSelection):
        return tuple(
            Matched(
                coupling.name,
                coupling.size,
                int((~keep).sum()),
                int((~earlier.keep_nodes[coupling]).sum()) if coupling in earlier.keep_nodes else 0,
                _writers(coupling),
            )
            for coupling, keep in chosen.coupled.items()
        )
    assert isinstance(chosen, WeightSelection)
    found = []
    for path in chosen.own_paths:
        keep, before = pruned.keep[path], earlier.keep.get(path)
        pruned_before = 0 if before is None else before.numel() - int(before.count_nonzero())
        found.append(Matched(path, keep.numel(), keep.numel() - int(keep.count_nonzero()), pruned_before))
    return tuple(found)


def _writers(coupling: Coupling) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer_of(member.tensor) for member in coupling.members if member.role == "writes"))


def _warn(found: Rehearsed, place: LocationOf) -> None:
    at, stage = f"stages.{found.number}", found.stage
    things = "nodes" if isinstance(stage.target, schema.Nodes) else "entries"
    measure = stage.level[0] if stage.layers is None else "layers"
    if not found.pruned:
        _say(
            f"{place(f'{at}.{measure}')}: {found.asked:g} of {found.of:,} {things} rounds to 0, so this stage prunes "
            "nothing; ask for more"
        )
    elif found.pruned == sum(matched.earlier for matched in found.matched):
        _say(
            f"{place(f'{at}.target')}: all {found.pruned:,} {things} of this stage were already pruned by an "
            f"earlier one ({measure} refers to the original network, stages do not add up); ask for more, or remove it"
        )
    removal = stage.removal
    duration_set = getattr(removal, "over", None) or getattr(removal, "factor", None)
    if duration_set is not None and found.removal.length == found.steps:
        _say(
            f"{place(f'{at}.removal')}: the removal ends with the last of the {count_of(found.steps, 'step')}, "
            "and no training "
            "follows; retrain for longer, or shorten the removal"
        )
    how = found.removal
    ramp = how.ramp if isinstance(how, GradualSoft) else how.length
    if isinstance(how, Gradual | GradualSoft) and how.every >= ramp:
        _say(
            f"{place(f'{at}.removal')}: the set grows every {count_of(how.every, 'step')} and has to be complete after "
            f"{ramp:,}: everything is pruned at once; set a smaller `every`, or retrain for longer"
        )


def _warn_if_nothing_is_cut(network: nn.Module, setting: Setting) -> None:
    zeros = sum(parameter.numel() - int(parameter.count_nonzero()) for parameter in network.parameters())
    why = "every node of every layer still has weights"
    try:
        if cuttable(network, setting.couplings(network)):
            return
    except UnsupportedModelError as error:
        why = str(error).rstrip(".")
    _say(
        f"nothing can be cut out: {why}, as far as can be known before training; this leaves "
        f"{count_of(zeros, 'zero')} in place, "
        "and the slim network is as large as the dense one. Prune nodes, or more of the weights"
    )


def _say(text: str) -> None:
    warnings.warn(text, PlanWarning, stacklevel=3)
