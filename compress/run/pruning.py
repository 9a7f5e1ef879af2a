"""Run a recipe's stage as a call of `compress.Pruner`: the same words, with the run's data, loss and seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.branches import Branch
from compress.graph.coupling import Coupling
from compress.recipe import schema
from compress.remove.pruner import Pruner
from compress.remove.removals import Removal
from compress.run.setting import Setting, optimization
from compress.select.branch_selection import BranchSelection
from compress.select.criteria import Criterion
from compress.select.node_selection import NodeSelection
from compress.select.pruned import Pruned
from compress.select.scoring import Scoring
from compress.select.selection import Selection
from compress.select.selections import selection_of
from compress.select.targets import AnyTarget, Branches, Nodes, Weights
from compress.tasks import loss
from compress.wording import count_of


def removal_of(stage: schema.Stage, steps_per_epoch: int) -> tuple[int, Removal]:
    """(steps of the retraining, the removal during it).

    Raises:
        InputError: the removal takes longer than the retraining.
    """
    steps = stage.retrain.epochs * steps_per_epoch if stage.retrain is not None else 0
    removal = stage.removal.build(steps, steps_per_epoch)
    if removal.length > steps:
        raise InputError(
            f"the {stage.removal.kind} removal takes {count_of(removal.length, 'step')} and the retraining has {steps} "
            f"({steps_per_epoch} an epoch): retrain for longer, or shorten the removal"
        )
    return steps, removal


def pruner_of(
    model: nn.Module,
    stage: schema.Stage,
    number: int,
    earlier: Pruned,
    setting: Setting,
    removal: Removal,
    *,
    compensate: bool | None = None,
    start: bool = True,
) -> Pruner:
    """The pruner that the stage describes.

    Args:
        number: the stage's place in the recipe, from 0.
        earlier: the entries pruned by earlier stages.
        removal: how to remove the chosen entries; the stage's removal, or another one.
        compensate: overrides the stage's own setting.

    Raises:
        InputError: as `Pruner`.
    """
    return Pruner(
        model,
        target_of(stage),
        **_words(stage, number, setting),
        removal=removal,
        compensate=stage.compensates if compensate is None else compensate,
        earlier=earlier,
        mask_gradients=masks_gradients(stage, removal),
        start=start,
    )


def stage_selection(model: nn.Module, stage: schema.Stage, number: int, earlier: Pruned, setting: Setting) -> Selection:
    """The selection of the stage's pruner, without any mask on the model."""
    return selection_of(model, target_of(stage), **_words(stage, number, setting), earlier=earlier)


def sketch(
    model: nn.Module, stage: schema.Stage, number: int, earlier: Pruned, setting: Setting
) -> NodeSelection | BranchSelection:
    """`stage_selection` by even scores instead of the criterion's scores, which would take too long."""
    words = _words(stage, number, setting) | {"criterion": EvenScores()}
    found = selection_of(model, target_of(stage), **words, earlier=earlier)
    assert isinstance(found, NodeSelection | BranchSelection)
    return found


def sketch_of_nodes(
    model: nn.Module, stage: schema.Stage, number: int, earlier: Pruned, setting: Setting
) -> NodeSelection:
    """`sketch` of a stage whose target is nodes."""
    found = sketch(model, stage, number, earlier, setting)
    assert isinstance(found, NodeSelection)
    return found


@dataclass(frozen=True)
class EvenScores(Criterion):
    """Even scores in each layer, and branches in the order of the forward pass: as good a guess as any."""

    words = ()

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> dict[Coupling, Tensor]:
        return {coupling: torch.linspace(0, 1, coupling.size) for coupling in coupled}

    def branch_cost(self, scoring: Scoring) -> Callable[[Sequence[Branch]], float]:
        return lambda removed: float(len(removed))


def target_of(stage: schema.Stage) -> AnyTarget:
    target = stage.target
    if isinstance(target, schema.Branches):
        return Branches(target.branches, target.exclude)
    if isinstance(target, schema.Nodes):
        return Nodes(target.nodes, target.exclude)
    return Weights(target.weights, target.exclude, target.bias)


def in_batches_of(stage: schema.Stage, setting: Setting) -> Setting:
    wanted = None if stage.retrain is None else stage.retrain.batch_size
    return setting if wanted is None else replace(setting, batch_size=wanted)


def _words(stage: schema.Stage, number: int, setting: Setting) -> dict[str, Any]:
    data, task, device = setting.data, setting.task, setting.device
    measure, value = stage.level
    return {
        **({measure: value} if stage.layers is None else {"layers": stage.layers}),
        "criterion": stage.criterion.build(),
        "example": setting.example,
        "batches": lambda size: data.batches("train", size, task, device)(),
        "loss": loss(task),
        "scope": stage.scope.build() if isinstance(stage.scope, schema.Pattern) else stage.scope,
        "multiple_of": stage.multiple_of,
        "min_keep": stage.min_keep,
        "regrow": None if stage.regrow is None else stage.regrow.build(),
        "seed": setting.seed + number,
        "traced": setting.traced,
    }


def masks_gradients(stage: schema.Stage, removal: Removal) -> bool:
    """Whether gradients of pruned entries could reach others, or the entries themselves if they grow back."""
    come_back = removal.cohorts or stage.regrow is not None
    return come_back or (stage.retrain is not None and not optimization(stage.retrain).elementwise)
