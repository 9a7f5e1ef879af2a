"""Every stage before the run, without any training: chosen on the network as it stands, cut at once, and judged.

`compress apply` rehearses before it spends time on training, and `compress plan` shows what the rehearsal finds: what
one of them refuses or warns of, the other does too.
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

SAMPLES = 250
"""Training images that a criterion looks at here: enough to see roughly what goes, in a blink."""

LocationOf = Callable[[str], str]
"""Where a key of the recipe, such as "stages.0.target", was written, for messages."""


class PlanWarning(UserWarning):
    """A recipe that can be run, and will not do what it seems to be for."""


@dataclass(frozen=True)
class Matched:
    """One parameter, or the nodes of one layer with all that is coupled to them.

    goes: entries or nodes that are gone after the stage, `earlier` of them by an earlier stage already.
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

    images: training images that the criterion was shown here; `wanted` are those that the stage shows it. None: it
        looks at none.
    even: the nodes were chosen by even scores instead of the criterion's own, which would take too long.
    paths: all parameters with masks, earlier stages' included. trainable: patterns of what trains.
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
    images: int | None
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
    """Rehearse all stages on `model`, which is of no use afterwards, for the errors and the warnings alone.

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
    """Yield what each stage would do, once it has been done to `network`: what it chooses is zero then.

    Warns with PlanWarning, and with LayerCollapseWarning, of what the run would do in vain. The global random state
    is as if nothing had been drawn from it.

    Args:
        pruned: what stages have taken; each adds its own.
        now: the time in seconds.

    Raises:
        InputError: a stage that cannot be run, with the key that is in the way; all stages are checked before the
            first is rehearsed.
        UnsupportedModelError: a network that cannot be slimmed.
        NothingPrunedError: no entry would go.
    """
    setting.couplings(network)  # what cannot be traced cannot be slimmed after the training either
    sketch = Pruned()
    going = [check_stage(network, stage, number, setting, place, sketch) for number, stage in enumerate(recipe.stages)]
    if not any(going):
        raise NothingPrunedError(
            "no entry would be pruned: at a sparsity this low, round(sparsity * n) is 0; ask for a larger one"
        )
    for number, stage in enumerate(recipe.stages):
        with torch.random.fork_rng([setting.device] if setting.device.type == "cuda" else []):
            found = _rehearse(network, stage, number, pruned, setting, place, now)
        _warn(found, place)
        yield found
    _warn_of_what_stays(network, setting)


def _rehearse(
    network: nn.Module,
    stage: schema.Stage,
    number: int,
    pruned: Pruned,
    setting: Setting,
    place: LocationOf,
    now: Callable[[], float],
) -> Rehearsed:
    setting = replace(in_batches_of(stage, setting), journal=Journal())  # what is rehearsed has not been done
    steps, removal = removal_of(stage, setting.steps_per_epoch)
    earlier = pruned.copy()
    short, images, wanted = _with_fewer_images(stage, setting)
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
        None if even else images,
        wanted,
        even,
        chosen.paths,
        trainable_of(stage, chosen),
        ready - start,
        end - ready,
    )


def _with_fewer_images(stage: schema.Stage, setting: Setting) -> tuple[schema.Stage, int | None, int | None]:
    """(the stage with a criterion that looks at few images, how many these are, how many the stage's own are)."""
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
        gone = 0 if before is None else before.numel() - int(before.count_nonzero())
        found.append(Matched(path, keep.numel(), keep.numel() - int(keep.count_nonzero()), gone))
    return tuple(found)


def _writers(coupling: Coupling) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer_of(member.tensor) for member in coupling.members if member.role == "writes"))


def _warn(found: Rehearsed, place: LocationOf) -> None:
    at, stage = f"stages.{found.number}", found.stage
    things = "nodes" if isinstance(stage.target, schema.Nodes) else "entries"
    measure = stage.level[0] if stage.layers is None else "layers"
    if not found.pruned:
        _say(
            f"{place(f'{at}.{measure}')}: {found.asked:g} of {found.of:,} {things} rounds to none, so this stage takes "
            "nothing; ask for more"
        )
    elif found.pruned == sum(matched.earlier for matched in found.matched):
        _say(
            f"{place(f'{at}.target')}: all {found.pruned:,} {things} that this stage takes are gone by an earlier "
            f"stage already ({measure} is of the original network, stages do not add up); ask for more, or remove it"
        )
    removal = stage.removal
    told = getattr(removal, "over", None) or getattr(removal, "factor", None)
    if told is not None and found.removal.length == found.steps:
        _say(
            f"{place(f'{at}.removal')}: the last of it goes with the last of the {found.steps:,} steps, and nothing "
            "makes up for it afterwards; retrain for longer, or let it go faster"
        )
    how = found.removal
    ramp = how.ramp if isinstance(how, GradualSoft) else how.length
    if isinstance(how, Gradual | GradualSoft) and how.every >= ramp:
        _say(
            f"{place(f'{at}.removal')}: the set grows every {how.every:,} steps, and is to be complete after "
            f"{ramp:,}: all of it is taken at once; set a smaller `every`, or retrain for longer"
        )


def _warn_of_what_stays(network: nn.Module, setting: Setting) -> None:
    zeros = sum(parameter.numel() - int(parameter.count_nonzero()) for parameter in network.parameters())
    why = "in no layer is a whole node without weights"
    try:
        if cuttable(network, setting.couplings(network)):
            return
    except UnsupportedModelError as error:
        why = str(error).rstrip(".")
    _say(
        f"nothing can be cut out: {why}, as far as can be told before training; {zeros:,} zeros stay where they are, "
        "and the slim network is as large as the dense one. Take nodes, or more of the weights"
    )


def _say(text: str) -> None:
    warnings.warn(text, PlanWarning, stacklevel=3)
