"""Rehearse every stage before the run, without training: select on the current network, cut at once, and check.

`compress apply` rehearses before it spends time on training, and `compress plan` shows the result: both refuse and
warn of the same things.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from compress.errors import NothingPrunedError
from compress.graph.coupling import Coupling
from compress.graph.flow import layer_of
from compress.recipe import schema
from compress.remove.removals import Hard
from compress.remove.remover import Remover
from compress.run import cautions
from compress.run.cautions import LocationOf
from compress.run.journal import Journal
from compress.run.pruning import in_batches_of, removal_of, sketch, stage_selection
from compress.run.rehearsed import Matched, Rehearsed
from compress.run.setting import Setting
from compress.run.stage import check_stage, quiet_about_nodes, told_at, trainable_of
from compress.select.branch_selection import BranchSelection
from compress.select.node_selection import NodeSelection
from compress.select.pruned import Pruned
from compress.select.selection import Selection
from compress.select.weight_selection import WeightSelection
from compress.train.latents import Latent

SAMPLES = 250
"""Training samples for a criterion in a rehearsal: enough for a rough selection, and fast."""


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

    Warns as `compress.run.cautions` says, and with LayerCollapseWarning. The global random state is left
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
        cautions.warn_of_stage(found, network, setting, pruned, place)
        yield found
    cautions.warn_if_nothing_is_cut(network, setting)


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
    with told_at(place(f"stages.{number}")), quiet_about_nodes(stage):
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
        Latent.of(chosen) if stage.shape is not None else None,
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
    if isinstance(chosen, BranchSelection):
        gone = {branch.name for branch in chosen.removed_before}
        return tuple(Matched(name, 1, gone_now, int(name in gone)) for name, gone_now in chosen.pruned_in.items())
    assert isinstance(chosen, WeightSelection)
    found = []
    for path in chosen.own_paths:
        keep, before = pruned.keep[path], earlier.keep.get(path)
        pruned_before = 0 if before is None else before.numel() - int(before.count_nonzero())
        found.append(Matched(path, keep.numel(), keep.numel() - int(keep.count_nonzero()), pruned_before))
    return tuple(found)


def _writers(coupling: Coupling) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer_of(member.tensor) for member in coupling.members if member.role == "writes"))
