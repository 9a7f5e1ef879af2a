"""One stage of a recipe on a model in memory: choose, remove while retraining, and leave exact zeros."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compress import metrics
from compress.data import TrainingData
from compress.errors import InputError
from compress.metrics import Task
from compress.recipe import schema
from compress.recipe.clock import Clock
from compress.remove import decay
from compress.remove.hard import HardPruner
from compress.remove.soft import SoftPruner
from compress.retrain import Optimization, Training, only_trainable, train
from compress.select import criteria
from compress.select.choose import choose
from compress.select.saliency import skeletonization
from compress.select.targets import resolve
from compress.slim.coupling import Coupling, Member, couplings

EVALUATION_BATCH = 250  # larger ones only make convolutions slower and memory scarcer

Bar = Callable[[str, int], AbstractContextManager[Callable[[int, float], None]]]


@dataclass(frozen=True)
class Setting:
    """What training and all stages share."""

    data: TrainingData
    task: Task
    batch_size: int
    device: torch.device
    seed: int
    bar: Bar  # (title, steps) -> context manager of a function (steps done, loss)
    clock: Clock

    @property
    def example(self) -> Tensor:
        """Two random inputs."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(2, *self.data.shape, generator=generator).to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.batches("train", self.batch_size, self.task))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss and, where the task has one, accuracy on the test images."""
        with self.clock.phase("evaluation"):
            batches = self.data.batches("test", EVALUATION_BATCH, self.task, self.device)
            return metrics.evaluate(model, batches, self.task)

    def train(
        self,
        model: nn.Module,
        title: str,
        steps: int,
        optimization: Optimization,
        after_step: Callable[[int], None] = lambda step: None,
    ) -> Training:
        """`retrain.train` on the training images, in the order that the seed gives."""
        with self.bar(title, steps) as on_step, self.clock.phase("training"):
            return train(
                model,
                self.data.batches("train", self.batch_size, self.task, self.device),
                metrics.loss(self.task),
                steps,
                optimization,
                generator=torch.Generator().manual_seed(self.seed),
                after_step=after_step,
                on_step=on_step,
            )


@dataclass
class Pruned:
    """What the stages so far have taken, so that no later one gives it back."""

    keep: dict[str, Tensor] = field(default_factory=dict)  # parameter path -> bool mask, True = keep
    keep_nodes: dict[str, Tensor] = field(default_factory=dict)  # layer -> bool [nodes]


@dataclass(frozen=True)
class Selection:
    """What a stage takes away: masks over whole parameters, and how many of the targets that is."""

    keep: Mapping[str, Tensor]
    count: int
    total: int
    adjacent: Sequence[str]  # parameters of the layers on both sides of pruned nodes


def run_stage(model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> dict[str, Any]:
    """Prune `model` in place as `stage` says; afterwards what was chosen is exactly zero and names are plain.

    Args:
        number: the stage's place in the recipe, from 0.
        pruned: what earlier stages took; this stage adds its own.

    Returns:
        The stage's entry of results.json.

    Raises:
        InputError: targets that do not exist, or a decay that is longer than the retraining.
        DivergedError: see `compress.retrain.train`.
    """
    steps, fall = schedule(stage, setting.steps_per_epoch)
    with setting.clock.phase("selection"):
        selection = _select(model, stage, number, pruned, setting)
    pruned.keep.update(selection.keep)
    before = setting.evaluate(model) if fall.steps == 0 else None
    training, earlier = Training(), setting.clock.spent("training")
    with only_trainable(model, _trainable(stage, selection)):
        pruner = _pruner(model, fall, pruned)

        def after_step(step: int) -> None:
            nonlocal before
            if pruner.removes_next:
                before = setting.evaluate(model)
            pruner.step()

        if steps and stage.retrain is not None:
            title = f"stage {number + 1}: {describe_target(stage)}"
            training = setting.train(model, title, steps, optimization(stage.retrain), after_step)
        pruner.finalize()
    return {
        "kind": "nodes" if isinstance(stage.target, schema.Nodes) else "weights",
        "target": describe_target(stage),
        "criterion": stage.criterion.model_dump(),
        "removal": stage.removal.model_dump(mode="json"),
        "asked": stage.sparsity,
        "achieved": selection.count / selection.total,
        "pruned": selection.count,
        "of": selection.total,
        "before_removal": before,
        "after_removal": setting.evaluate(model),
        "steps": training.steps,
        "decay_steps": fall.steps,
        "epoch_losses": training.losses,
        "seconds": setting.clock.spent("training") - earlier,
    }


def check_stage(
    model: nn.Module, stage: schema.Stage, number: int, setting: Setting, place: Callable[[str], str] = str
) -> int:
    """Find out before any time is spent whether the stage can be run on this network.

    Args:
        place: where a key of the recipe, such as "stages.0.target", was written, for the error text.

    Returns:
        How many of its entries or nodes will go.

    Raises:
        InputError: its decay is too slow, or its targets or trainable parameters do not exist or cannot be pruned.
    """
    with _told_at(place(f"stages.{number}.removal")):
        schedule(stage, setting.steps_per_epoch)
    with _told_at(place(f"stages.{number}.target")):
        if isinstance(stage.target, schema.Nodes):
            structure = couplings(model, setting.example)
            ranked = [structure.of(layer).size for layer in stage.target.nodes]
        else:
            found = resolve(model, stage.target.weights, bias=stage.target.bias)
            sizes = [target.parameter.numel() for target in found]
            ranked = sizes if stage.scope == "layer" else [sum(sizes)]
    if stage.retrain is not None and not isinstance(stage.retrain.trainable, str):
        with _told_at(place(f"stages.{number}.retrain.trainable")), only_trainable(model, stage.retrain.trainable):
            pass
    return sum(round(stage.sparsity * size) for size in ranked)


@contextmanager
def _told_at(place: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(f"{place}: {error}") from error


def schedule(stage: schema.Stage, steps_per_epoch: int) -> tuple[int, decay.Decay]:
    """(steps of the retraining, the decay within it).

    Raises:
        InputError: the decay is not over when the retraining is.
    """
    steps = stage.retrain.epochs * steps_per_epoch if stage.retrain is not None else 0
    removal = stage.removal
    if isinstance(removal, schema.HardRemoval):
        return steps, decay.over(0)
    final = decay.GONE if removal.final is None else removal.final
    if removal.factor is not None:
        fall = decay.by_factor(removal.factor, final=final)
    else:
        over = steps if removal.over is None else removal.over.steps(steps_per_epoch)
        fall = decay.over(over, removal.decay, final=final)
    if fall.steps > steps:
        raise InputError(
            f"the decay of {describe_target(stage)} takes {fall.steps} steps until it is gone and the retraining has "
            f"{steps} ({steps_per_epoch} an epoch): retrain for longer, or let it decay faster"
        )
    return steps, fall


def optimization(settings: schema.Training) -> Optimization:
    """The optimizer's part of a `train` or `retrain` section."""
    return Optimization(settings.optimizer, settings.lr, settings.momentum, settings.weight_decay, settings.lr_schedule)


def describe_target(stage: schema.Stage) -> str:
    target = stage.target
    if isinstance(target, schema.Nodes):
        return ", ".join(target.nodes)
    return ", ".join(target.weights) + (" with biases" if target.bias else "")


def _select(model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> Selection:
    if isinstance(stage.target, schema.Nodes):
        return _select_nodes(model, stage, stage.target.nodes, number, pruned, setting)
    return _select_weights(model, stage, stage.target, number, pruned, setting)


def _select_weights(
    model: nn.Module, stage: schema.Stage, target: schema.Weights, number: int, pruned: Pruned, setting: Setting
) -> Selection:
    targets = resolve(model, target.weights, bias=target.bias)
    names = [found.path for found in targets]
    criterion: criteria.Criterion = criteria.magnitude
    if isinstance(stage.criterion, schema.Random):
        criterion = partial(criteria.random, generator=_chance(setting, number))
    scores = [_taken_first(criterion(found.parameter), pruned.keep.get(found.path)) for found in targets]
    chosen = choose(scores, stage.sparsity, scope=stage.scope or "global", min_keep=stage.min_keep, names=names)
    masks = _with_earlier(dict(zip(names, chosen, strict=True)), pruned.keep)
    return Selection(masks, *_count(masks), adjacent=[])


def _select_nodes(
    model: nn.Module, stage: schema.Stage, layers: Sequence[str], number: int, pruned: Pruned, setting: Setting
) -> Selection:
    structure = couplings(model, setting.example)
    coupled = {layer: structure.of(layer) for layer in layers}
    scores = _node_scores(model, stage, coupled, number, setting)
    ranked = [_taken_first(scores[layer], pruned.keep_nodes.get(layer)) for layer in layers]
    chosen = choose(ranked, stage.sparsity, scope="layer", min_keep=stage.min_keep, names=list(layers))
    nodes = _with_earlier(dict(zip(layers, chosen, strict=True)), pruned.keep_nodes)
    pruned.keep_nodes.update(nodes)
    masks: dict[str, Tensor] = {}
    for layer, coupling in coupled.items():
        masks |= _with_earlier(coupling.masks(model, nodes[layer]), masks)
    sides = {member.tensor.rpartition(".")[0] for coupling in coupled.values() for member in coupling.members}
    adjacent = [f"{side}.*" for side in sorted(sides)]
    return Selection(_with_earlier(masks, pruned.keep), *_count(nodes), adjacent)


def _node_scores(
    model: nn.Module, stage: schema.Stage, coupled: Mapping[str, Coupling], number: int, setting: Setting
) -> dict[str, Tensor]:
    criterion = stage.criterion
    if isinstance(criterion, schema.Random):
        chance = _chance(setting, number)
        return {layer: torch.rand(coupling.size, generator=chance) for layer, coupling in coupled.items()}
    if isinstance(criterion, schema.Magnitude):
        return {layer: _norms(model, layer, coupling) for layer, coupling in coupled.items()}
    batches = setting.data.batches("train", EVALUATION_BATCH, setting.task, setting.device)
    saliency = skeletonization(
        model,
        list(coupled),
        batches() if criterion.samples == "all" else _first(batches(), criterion.samples),
        metrics.loss(setting.task),
        error=criterion.error,
        reduce=criterion.reduce,
    )
    return {layer: _per_node(saliency[layer], layer, coupling) for layer, coupling in coupled.items()}


def _norms(model: nn.Module, layer: str, coupling: Coupling) -> Tensor:
    """Norm of each node's incoming weights."""
    member = _writer(layer, coupling)
    squares = criteria.row_norm(model.get_parameter(member.tensor), member.dim).square()
    return _per_node(squares, layer, coupling).sqrt()


def _per_node(scores: Tensor, layer: str, coupling: Coupling) -> Tensor:
    """Add up what belongs to one node, where a layer has several outputs to the node (before an Unflatten)."""
    return _writer(layer, coupling).per_node(scores)


def _writer(layer: str, coupling: Coupling) -> Member:
    """The weight of `layer`, whose rows are the nodes."""
    return next(member for member in coupling.members if member.tensor == f"{layer}.weight")


def _first(batches: Iterable[tuple[Tensor, Tensor]], samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    left = samples
    for inputs, target in batches:
        yield inputs[:left], target[:left]
        left -= len(inputs)
        if left <= 0:
            return


def _with_earlier(masks: Mapping[str, Tensor], earlier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks, with nothing coming back that an earlier one took."""
    return {name: mask & earlier[name] if name in earlier else mask for name, mask in masks.items()}


def _count(masks: Mapping[str, Tensor]) -> tuple[int, int]:
    """(how many are gone, of how many); more than was asked where an earlier stage took more."""
    return sum(int((~mask).sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())


def _taken_first(scores: Tensor, keep: Tensor | None) -> Tensor:
    """Sparsity is of the original: what an earlier stage took counts, so it goes first."""
    return scores if keep is None else scores.masked_fill(~keep, -torch.inf)


def _chance(setting: Setting, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(setting.seed + number)


def _trainable(stage: schema.Stage, selection: Selection) -> Sequence[str]:
    wanted = "all" if stage.retrain is None else stage.retrain.trainable
    if wanted == "all":
        return ["*"]
    return selection.adjacent if wanted == "adjacent" else list(wanted)


def _pruner(model: nn.Module, fall: decay.Decay, pruned: Pruned) -> SoftPruner:
    """One pruner for this stage's targets and for what earlier stages took: the latter is zero and stays so."""
    targets = resolve(model, list(pruned.keep))
    keep = [pruned.keep[target.path] for target in targets]
    if fall.steps == 0:
        return HardPruner(model, list(pruned.keep), keep=keep)
    return SoftPruner(model, list(pruned.keep), keep=keep, steps=fall.steps, decay=fall.curve)
