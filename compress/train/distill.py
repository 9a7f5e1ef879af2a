"""Distillation: the pruned network also learns the outputs of the dense one (Hinton et al., 2015)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.batches import Attributed, Batches, Pair, pairs
from compress.evaluation_mode import evaluation_mode
from compress.tasks import Loss, Task, Word, loss, prediction, word_of
from compress.tasks.targets import class_logits


@dataclass(frozen=True, eq=False)
class Teacher:
    """weight: share of the teacher's part in the loss, in (0, 1]. temperature: divides both networks' logits."""

    network: nn.Module
    weight: float
    temperature: float = 1.0

    def batches(self, batches: Batches) -> Batches:
        """`batches` with the pair (target, the teacher's output) in place of each target; attributes remain."""
        return _TaughtBatches(batches, self.network)

    def loss(self, task: Task) -> Loss:
        """(1 - weight) times the task's own loss, and `weight` times the distance from the teacher's output.

        For classes and tokens the distance is T**2 times the Kullback-Leibler divergence in nats between both networks'
        softmax at the temperature T, for several labels a sample that between their sigmoids; for values, and outputs
        of a task of the user's own, the mean squared error. It is that of the tensors that `prediction` finds in both
        outputs. Targets are those of `batches`.
        """
        own, word = loss(task), word_of(task)

        def mixed(output: object, target: tuple[Any, Tensor]) -> Tensor:
            truth, taught = target
            if word in ("classify", "language_model", "multilabel"):
                apart = self._divergence(_scores(output, word), _scores(taught, word))
            else:
                apart = F.mse_loss(prediction(output), taught)
            return (1 - self.weight) * own(output, truth) + self.weight * apart

        return mixed

    def _divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        """The mean over all places of logits [N, classes, ...]."""
        said, wanted = (F.log_softmax(values / self.temperature, dim=1) for values in (logits, taught))
        places = said.numel() // said.shape[1]
        return self.temperature**2 * F.kl_div(said, wanted, reduction="sum", log_target=True) / places


def _scores(output: object, word: Word | None) -> Tensor:
    """Logits [N, classes, ...]: of the tokens at each place, or of each label against 0."""
    if word == "classify":
        return class_logits(output)
    logits = prediction(output)
    return logits.flatten(0, -2) if word == "language_model" else class_logits(logits.flatten())


@dataclass(frozen=True, eq=False)
class _TaughtBatches:
    batches: Batches
    teacher: nn.Module

    def __len__(self) -> int:
        return len(self.batches)

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Pair]:
        return self._taught(self.batches(generator, skip))

    def _taught(self, batches: Iterator[tuple[Any, Any]]) -> Iterator[Pair]:
        for given, target in pairs(batches, self.teacher):
            with evaluation_mode(self.teacher):
                taught = prediction(given.call(self.teacher))
            if isinstance(target, Attributed):
                yield given, Attributed((target.target, taught), target.attributes)
            else:
                yield given, (target, taught)
