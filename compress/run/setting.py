"""The setting that training and all stages of a run share: the data, the device, the seed, and the watchers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from compress import tasks
from compress.data.dataset import TrainingData
from compress.data.training import training_batches
from compress.dynamic import Dynamic
from compress.graph.coupling import Couplings
from compress.graph.traced_once import TracedOnce
from compress.inputs import Inputs
from compress.recipe import schema
from compress.remove.remover import Remover
from compress.run.clock import Clock
from compress.run.journal import Journal
from compress.run.witness import Witness
from compress.select.scoring import EVALUATION_BATCH
from compress.tasks import Task
from compress.train import metrics
from compress.train.distill import Teacher
from compress.train.loop import TrainingRecord, train
from compress.train.optimization import Optimization
from compress.train.ranks import ALONE, Ranks
from compress.train.shaping import Shaping


class Moment(NamedTuple):
    """The progress after a training step.

    step: the number of the step, from 1.
    lr: the learning rate of the step.
    factor: the factor of all pruned entries, if they share one.
    share: the share of the final set that has been chosen, in [0, 1]; None if nothing is pruned.
    rows: samples of the step's batch.
    """

    step: int
    loss: float
    lr: float | None = None
    factor: float | None = None
    share: float | None = None
    rows: int = 1


OnStep = Callable[[Moment], None]


class Watcher(Protocol):
    """An observer of a run, which shows or logs its progress."""

    def begin(self, part: str, title: str) -> None:
        """A part of the run begins: "train", "stage_1", "slim", "scratch_total", "files"; `title` is for people."""

    def phase(self, name: str) -> None:
        """A phase begins, by its name in `Clock.phase`."""

    def training(self, steps: int, epoch: int) -> AbstractContextManager[OnStep]:
        """A training of `steps` steps, `epoch` of them in an epoch; the yielded function is called after each step."""
        ...

    def measured(self, when: str, metric: Mapping[str, float], step: int) -> None:
        """A figure on the test samples, after `step` steps of the part: "test", "before_removal", "after_removal"."""


class Unwatched:
    """A watcher that ignores all events."""

    def begin(self, part: str, title: str) -> None:
        pass

    def phase(self, name: str) -> None:
        pass

    def training(self, steps: int, epoch: int) -> AbstractContextManager[OnStep]:
        return nullcontext(lambda moment: None)

    def measured(self, when: str, metric: Mapping[str, float], step: int) -> None:
        pass


unwatched = Unwatched()
"""The watcher of a run that nobody watches."""


class Watchers:
    """Several watchers, called one after the other."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def begin(self, part: str, title: str) -> None:
        for watcher in self._watchers:
            watcher.begin(part, title)

    def phase(self, name: str) -> None:
        for watcher in self._watchers:
            watcher.phase(name)

    @contextmanager
    def training(self, steps: int, epoch: int) -> Iterator[OnStep]:
        with ExitStack() as stack:
            listeners = [stack.enter_context(watcher.training(steps, epoch)) for watcher in self._watchers]

            def on_step(now: Moment) -> None:
                for listener in listeners:
                    listener(now)

            yield on_step

    def measured(self, when: str, metric: Mapping[str, float], step: int) -> None:
        for watcher in self._watchers:
            watcher.measured(when, metric, step)


@dataclass(frozen=True)
class Setting:
    data: TrainingData
    task: Task
    batch_size: int
    device: torch.device
    seed: int
    watcher: Watcher
    clock: Clock
    journal: Journal = field(default_factory=Journal)
    ranks: Ranks = ALONE
    dense: Callable[[], nn.Module] | None = None
    """Returns the network before all stages, for distillation; without it, a stage copies its own network."""
    traced: TracedOnce = field(default_factory=TracedOnce)
    witness: Witness | None = None  # if figures of several networks are compared
    dynamic: Dynamic | None = None

    @property
    def example(self) -> Inputs:
        """What the network is called with for the first two training samples."""
        return self.data.example.mapped(lambda tensor: tensor.to(self.device))

    def couplings(self, model: nn.Module) -> Couplings:
        """The couplings of the run's network; all callers share one trace.

        Raises:
            UnsupportedModelError: it cannot be traced.
        """
        return self.traced.couplings(model, self.example)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.batches("train", self.batch_size, self.task))

    def evaluate(
        self, model: nn.Module, seen: Callable[[Any, Any], None] = lambda output, target: None
    ) -> dict[str, float]:
        """Loss and, if the task has one, accuracy on the test samples; `seen` is called with each (output, target).

        Raises RunError if a witness finds the samples changed.
        """
        with self.clock.phase("evaluation"):
            batches = self.data.batches("test", EVALUATION_BATCH, self.task, self.device)
            if self.witness is None:
                return metrics.evaluate(model, batches, self.task, seen)
            with self.witness.evaluation(batches) as watched:
                return metrics.evaluate(model, watched, self.task, seen)

    def train(
        self,
        model: nn.Module,
        steps: int,
        optimization: Optimization,
        after_step: Callable[[int], None] = lambda step: None,
        teacher: Teacher | None = None,
        pruner: Remover | None = None,
        on_moment: OnStep = lambda moment: None,
        shaping: Shaping | None = None,
    ) -> TrainingRecord:
        """Train on the training samples, augmented and in the order of the seed, while `pruner` prunes.

        `on_moment` is called after every step, like the watcher. The terms of `shaping` are part of the loss.
        """
        wanted = () if shaping is None else shaping.attributes
        batches = training_batches(self.data, self.batch_size, self.task, self.device, attributes=wanted)
        loss = tasks.loss(self.task) if teacher is None else teacher.loss(self.task)
        journal, epoch = self.journal, self.steps_per_epoch
        with self.watcher.training(steps, epoch) as tell, self.clock.phase("training"), journal.training(steps) as keep:

            def on_step(step: int, loss: float, lr: float, rows: int) -> None:
                factor, share = (None, None) if pruner is None else (pruner.factor, pruner.share)
                now = Moment(step, loss, lr, factor, share, rows)
                on_moment(now)
                tell(now)
                keep(step)

            return train(
                model,
                batches if teacher is None else teacher.batches(batches),
                loss if shaping is None else shaping.mixed(loss, completes=tasks.word_of(self.task) == "reconstruct"),
                steps,
                optimization,
                generator=torch.Generator().manual_seed(self.seed),
                after_step=after_step,
                on_step=on_step,
                ranks=self.ranks,
                on_start=lambda loop: journal.follow("loop", loop),
            )


def optimization(settings: schema.Training) -> Optimization:
    """The optimizer's part of a `train` or `retrain` section."""
    keys = ("optimizer", "lr", "momentum", "weight_decay", "lr_schedule", "warmup", "precision")
    return Optimization(**{key: getattr(settings, key) for key in keys})
