"""Distillation: the pruned network also learns the outputs of the dense one (Hinton et al., 2015)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.batches import Batches
from compress.evaluation_mode import evaluation_mode
from compress.tasks import Loss, Task, loss


@dataclass(frozen=True, eq=False)
class Teacher:
    """weight: share of the teacher's part in the loss, in (0, 1]. temperature: divides both networks' logits."""

    network: nn.Module
    weight: float
    temperature: float = 1.0

    def batches(self, batches: Batches) -> Batches:
        """`batches` with the pair (target, the teacher's output) in place of each target."""
        return _TaughtBatches(batches, self.network)  # type: ignore[return-value]

    def loss(self, task: Task) -> Loss:
        """(1 - weight) times the task's own loss, and `weight` times the distance from the teacher's output.

        For logits the distance is T**2 times the Kullback-Leibler divergence in nats between both networks' softmax
        at the temperature T; for images, and outputs of a task of the user's own, the mean squared error. Targets are
        those of `batches`.
        """
        own = loss(task)

        def mixed(output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
            truth, taught = target
            apart = self._divergence(output, taught) if task == "classify" else F.mse_loss(output, taught)
            return (1 - self.weight) * own(output, truth) + self.weight * apart

        return mixed  # type: ignore[return-value]

    def _divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        said, wanted = (F.log_softmax(values / self.temperature, dim=1) for values in (logits, taught))
        return self.temperature**2 * F.kl_div(said, wanted, reduction="batchmean", log_target=True)


@dataclass(frozen=True, eq=False)
class _TaughtBatches:
    batches: Batches
    teacher: nn.Module

    def __len__(self) -> int:
        return len(self.batches)

    def __call__(
        self, generator: torch.Generator | None = None, skip: int = 0
    ) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor]]]:
        return self._taught(self.batches(generator, skip))

    def _taught(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor]]]:
        for inputs, target in batches:
            with evaluation_mode(self.teacher):
                taught = self.teacher(inputs)
            yield inputs, (target, taught)
