"""What training and all stages of a run share: the data, the device, the seed, and who is told of progress."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from compress import tasks
from compress.data.dataset import TrainingData
from compress.graph.coupling import Couplings
from compress.graph.traced_once import TracedOnce
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


class Moment(NamedTuple):
    """What is known after a training step.

    step: how many are done, from 1.
    lr: the learning rate that it took.
    factor: what all pruned entries are multiplied by, where it is one for all of them.
    share: how much of what goes in the end has been chosen, in [0, 1]; None where nothing is pruned.
    """

    step: int
    loss: float
    lr: float | None = None
    factor: float | None = None
    share: float | None = None


OnStep = Callable[[Moment], None]


class Watcher(Protocol):
    """Who is told how a run goes on, to show it or to write it down."""

    def begin(self, part: str, title: str) -> None:
        """A part of the run begins: "train", "stage_1", "slim"; and what people call it."""

    def phase(self, name: str) -> None:
        """What is being done from now on, by the name that it has in `Clock.phase`."""

    def training(self, steps: int, epoch: int) -> AbstractContextManager[OnStep]:
        """A training of so many steps, `epoch` of them in an epoch; what is yielded is told of every one."""
        ...

    def measured(self, when: str, metric: Mapping[str, float], step: int) -> None:
        """A figure on the test images, after so many steps of the part: "test", "before_removal", "after_removal"."""


class Unwatched:
    """A watcher that does nothing with what it is told."""

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
    """Several watchers, told one after the other."""

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
            told = [stack.enter_context(watcher.training(steps, epoch)) for watcher in self._watchers]

            def on_step(now: Moment) -> None:
                for tell in told:
                    tell(now)

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
    """Gives the network before all stages, for distillation; a stage copies the network that it gets without it."""
    traced: TracedOnce = field(default_factory=TracedOnce)
    witness: Witness | None = None  # where figures of several networks are to be compared

    @property
    def example(self) -> Tensor:
        """Two random inputs."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(2, *self.data.shape, generator=generator).to(self.device)

    def couplings(self, model: nn.Module) -> Couplings:
        """What shrinks together in the run's network; all that asks shares one trace.

        Raises:
            UnsupportedModelError: it cannot be traced.
        """
        return self.traced.couplings(model, self.example)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.batches("train", self.batch_size, self.task))

    def evaluate(
        self, model: nn.Module, seen: Callable[[Tensor, Tensor], None] = lambda output, target: None
    ) -> dict[str, float]:
        """Loss and, where the task has one, accuracy on the test images; `seen` is told of each (output, target).

        Raises RunError where a witness finds the images changed.
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
        told: OnStep = lambda moment: None,
    ) -> TrainingRecord:
        """`retrain.train` on the training images, in the order that the seed gives, while `pruner` prunes.

        `told` hears of every step, as the bar does.
        """
        batches = self.data.batches("train", self.batch_size, self.task, self.device)
        journal, epoch = self.journal, self.steps_per_epoch
        with self.watcher.training(steps, epoch) as tell, self.clock.phase("training"), journal.training(steps) as keep:

            def on_step(step: int, loss: float, lr: float) -> None:
                removal = () if pruner is None else (pruner.factor, pruner.share)
                now = Moment(step, loss, lr, *removal)
                told(now)
                tell(now)
                keep(step)

            return train(
                model,
                batches if teacher is None else teacher.batches(batches),
                tasks.loss(self.task) if teacher is None else teacher.loss(self.task),
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
