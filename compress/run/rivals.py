"""What a pruned network has to beat: the slim network's shape, trained from random weights."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from compress.errors import TrainingError, UnsupportedModelError
from compress.graph.trace import tensors_of
from compress.ranking import MetricKind, present
from compress.recipe import schema
from compress.results import Advantage, Metric, ScratchLength, ScratchResult, ScratchRun
from compress.run.building import build_model
from compress.run.pruning import in_batches_of
from compress.run.setting import Setting, optimization
from compress.run.stage import teacher_of
from compress.run_warnings import RunWarning
from compress.slimming.fresh import fresh
from compress.slimming.slim_graph import SlimGraphWarning
from compress.tasks import Task, ranking
from compress.tasks.scores import sample_scores
from compress.train import random_state
from compress.train.ranks import ALONE
from compress.wording import count_of

NOISE = 2.0
"""Standard errors up to which a difference is noise."""


class RivalWarning(RunWarning):
    """The slim network's shape is better if it is trained from scratch."""

    kind = "scratch_wins"


@dataclass(frozen=True)
class Part:
    """A part of a training, as a section of the recipe says; in a retraining, batches and teacher are the stage's."""

    title: str
    settings: schema.Training
    stage: schema.Stage | None = None


def parts_of(recipe: schema.Recipe, length: ScratchLength) -> list[Part]:
    """What a network trains that is trained for as long; empty if that is not known, or nothing."""
    stages = [
        Part(f"as in stage {number}", stage.retrain, stage)
        for number, stage in enumerate(recipe.stages, 1)
        if stage.retrain is not None and stage.retrain.epochs
    ]
    if length == "retraining":
        return stages
    return [] if recipe.train is None else [Part("as the dense network", recipe.train), *stages]


def against_scratch(recipe: schema.Recipe, small: nn.Module, masked: nn.Module, setting: Setting) -> ScratchResult:
    """Train networks of the slim network's shape from random weights, and compare them with it on the test samples.

    Each training is a chapter of the journal. In several processes, the first one trains alone.

    Args:
        small: the slim network, on the setting's device.
        masked: the network before it was cut.

    Warns:
        RivalWarning: a network from scratch is better than `small` by more than the noise of the test samples.
    """
    setting = replace(setting, ranks=ALONE)
    if _shapes(small) == _shapes(masked):
        return {"missing": "not trained, since nothing was cut out: the slim network has the dense network's shape"}
    result: ScratchResult = {}
    if reasons := list(_missing(recipe)):
        result["missing"] = "; ".join(reasons)
    ours = _Scores(setting.task)
    metric = setting.evaluate(small, ours)
    lengths: tuple[ScratchLength, ...] = get_args(ScratchLength)
    try:
        for length in lengths:
            if parts_of(recipe, length):
                write = partial(_run, recipe, length, small, ours, setting)
                result[length] = setting.journal.chapter(f"scratch, {length}", write)
    except UnsupportedModelError as error:
        return {"missing": f"not trained: {error}"}
    _warn(result, metric, ranking(setting.task))
    return result


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors_of(network).items()}


def _missing(recipe: schema.Recipe) -> Iterator[str]:
    if recipe.train is None:
        yield "the recipe has no `train`, so how long the dense network was trained is not known"
    if not parts_of(recipe, "retraining"):
        yield "nothing is retrained, so there is no training of that length"


def _run(
    recipe: schema.Recipe, length: ScratchLength, small: nn.Module, ours: "_Scores", setting: Setting
) -> ScratchRun:
    parts = parts_of(recipe, length)
    epochs = sum(part.settings.epochs for part in parts)
    setting.watcher.begin(f"scratch_{length}", f"from scratch, {count_of(epochs, 'epoch')}")
    network = from_scratch(recipe, small, setting)
    setting.journal.follow(f"scratch, {length}", network)
    setting.journal.follow(f"scratch, {length}, chance", random_state)
    found: ScratchRun = {"epochs": epochs, "steps": 0, "seconds": 0.0}
    theirs = _Scores(setting.task)
    try:
        for part in parts:
            done = setting.journal.chapter(f"scratch, {length}, {part.title}", partial(train, network, part, setting))
            found["steps"], found["seconds"] = found["steps"] + done["steps"], found["seconds"] + done["seconds"]
        metric = setting.evaluate(network, theirs)
    except TrainingError as error:
        return {**found, "diverged": str(error)}
    setting.watcher.measured("test", metric, found["steps"])
    return {**found, "metric": metric, **_compared(ours, theirs)}


def from_scratch(recipe: schema.Recipe, small: nn.Module, setting: Setting) -> nn.Module:
    """A network of the slim network's shape with random weights, which are not those that the dense network had."""
    seed = setting.seed + 1
    network = fresh(small, lambda drawn: build_model(recipe.model, drawn), seed, setting.example)
    torch.manual_seed(seed)
    return network


def train(network: nn.Module, part: Part, setting: Setting) -> dict[str, Any]:
    """Train all parameters of the network; its steps and seconds.

    Raises:
        DivergedError: the loss became NaN.
    """
    teacher = None
    if part.stage is not None:
        setting = in_batches_of(part.stage, setting)
        teacher = teacher_of(network, part.stage, setting)
    earlier = setting.clock.spent("training")
    with warnings.catch_warnings(action="ignore", category=SlimGraphWarning):  # this one trains as its class does
        steps = part.settings.epochs * setting.steps_per_epoch
        setting.train(network, steps, optimization(part.settings), teacher=teacher)
    return {"steps": steps, "seconds": setting.clock.spent("training") - earlier}


# --- which is better ---


class _Scores:
    """How good each test sample's output is, larger = better: see `sample_scores`."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._batches: list[Tensor] = []

    def __call__(self, output: Any, target: Any) -> None:
        self._batches.append(sample_scores(self._task, output, target).cpu())

    def all(self) -> Tensor:
        return torch.cat(self._batches)


def _compared(ours: _Scores, theirs: _Scores) -> Advantage:
    """The entries of a run that say which of the two is better."""
    ahead = ours.all() - theirs.all()
    if len(ahead) < 3:
        return {}
    mean, noise = float(ahead.mean()), NOISE * float(ahead.std()) / math.sqrt(len(ahead))
    return {
        "ahead": mean,
        "noise": noise,
        "better": "neither" if abs(mean) <= noise else "slim" if mean > 0 else "scratch",
    }


def _warn(found: ScratchResult, ours: Metric, ranked: MetricKind) -> None:
    for run, why in (
        (found.get("total"), "as many as the dense training and the retraining together"),
        (found.get("retraining"), "as many as the retraining"),
    ):
        if run is not None and run.get("better") == "scratch":
            warnings.warn(
                RivalWarning(
                    f"the slim network's shape is better trained from scratch: {_figure(run['metric'], ranked)} after "
                    f"{count_of(run['epochs'], 'epoch')}, {why}; pruned it has {_figure(ours, ranked)}",
                    "train the small network instead, prune less, or retrain for longer",
                ),
                stacklevel=2,
            )
            return


def _figure(metric: Metric, ranked: MetricKind) -> str:
    kind = present(ranked, metric)
    return f"{kind.name} {kind.text(metric[kind.name])}"
