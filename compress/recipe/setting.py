"""What training and all stages of a run share: the data, the device, the seed, and who is told of progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compress import metrics
from compress.data import TrainingData
from compress.distill import Teacher
from compress.metrics import Task
from compress.recipe import schema
from compress.recipe.clock import Clock
from compress.remove.pruner import Pruner
from compress.retrain import Optimization, Training, train

EVALUATION_BATCH = 250  # larger ones only make convolutions slower and memory scarcer


class Moment(NamedTuple):
    """What is known after a training step.

    step: how many are done, from 1.
    factor: what all pruned entries are multiplied by, where it is one for all of them.
    share: how much of what goes in the end has been chosen, in [0, 1]; None where nothing is pruned.
    """

    step: int
    loss: float
    factor: float | None = None
    share: float | None = None


OnStep = Callable[[Moment], None]
Bar = Callable[[str, int], AbstractContextManager[OnStep]]


def no_bar(title: str, steps: int) -> AbstractContextManager[OnStep]:
    """A `Bar` that shows nothing."""
    return nullcontext(lambda moment: None)


@dataclass(frozen=True)
class Setting:
    data: TrainingData
    task: Task
    batch_size: int
    device: torch.device
    seed: int
    bar: Bar  # (title, steps) -> context manager of a function that is told of every step
    clock: Clock

    @property
    def example(self) -> Tensor:
        """Two random inputs."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(2, *self.data.shape, generator=generator).to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.batches("train", self.batch_size, self.task))

    def evaluate(
        self, model: nn.Module, seen: Callable[[Tensor, Tensor], None] = lambda output, target: None
    ) -> dict[str, float]:
        """Loss and, where the task has one, accuracy on the test images; `seen` is told of each (output, target)."""
        with self.clock.phase("evaluation"):
            batches = self.data.batches("test", EVALUATION_BATCH, self.task, self.device)
            return metrics.evaluate(model, batches, self.task, seen)

    def train(
        self,
        model: nn.Module,
        title: str,
        steps: int,
        optimization: Optimization,
        after_step: Callable[[int], None] = lambda step: None,
        teacher: Teacher | None = None,
        pruner: Pruner | None = None,
        told: OnStep = lambda moment: None,
    ) -> Training:
        """`retrain.train` on the training images, in the order that the seed gives, while `pruner` prunes.

        `told` hears of every step, as the bar does.
        """
        batches = self.data.batches("train", self.batch_size, self.task, self.device)
        with self.bar(title, steps) as tell, self.clock.phase("training"):

            def on_step(step: int, loss: float) -> None:
                now = Moment(step, loss) if pruner is None else Moment(step, loss, pruner.factor, pruner.share)
                told(now)
                tell(now)

            return train(
                model,
                batches if teacher is None else teacher.batches(batches),
                metrics.loss(self.task) if teacher is None else teacher.loss(self.task),
                steps,
                optimization,
                generator=torch.Generator().manual_seed(self.seed),
                after_step=after_step,
                on_step=on_step,
            )


def optimization(settings: schema.Training) -> Optimization:
    """The optimizer's part of a `train` or `retrain` section."""
    keys = ("optimizer", "lr", "momentum", "weight_decay", "lr_schedule", "warmup", "precision")
    return Optimization(**{key: getattr(settings, key) for key in keys})
