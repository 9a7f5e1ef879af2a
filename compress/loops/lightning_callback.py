"""Pruning as a callback of Lightning: Trainer(callbacks=[LightningPruning(make)])."""

import math
from typing import Any

from torch import nn

from compress.errors import MissingPackageError
from compress.loops.pruning import Maker, Pruning, TrainingLength
from compress.remove.pruner import Pruner

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment]
    except ImportError as error:
        raise MissingPackageError(
            "LightningPruning needs the package lightning, which is not installed: pip install 'softprune[lightning]'"
        ) from error


class LightningPruning(Callback):
    """Prunes the LightningModule while it is fitted; its state is part of Lightning's checkpoints.

    The pruner is created after the sanity check, which therefore sees the original network. It takes a step after each
    batch in which an optimizer has stepped; with `accumulate_grad_batches`, not every batch counts. Trainers of the
    package pytorch_lightning also accept this callback.
    """

    def __init__(self, make: Maker) -> None:
        """make: creates the pruner; called with the LightningModule and the length of the loop."""
        self._pruning = Pruning(make)
        self._steps_seen = 0  # steps of all optimizers together

    @property
    def pruner(self) -> Pruner | None:
        """The pruner; None before training has started."""
        return self._pruning.pruner

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps_seen = trainer.global_step
        self._pruning.begin(pl_module, _loop_of(trainer), trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: nn.Module, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step > self._steps_seen:
            self._steps_seen = trainer.global_step
            self._pruning.step()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pruning.end()

    def state_dict(self) -> dict[str, Any]:
        return self._pruning.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._pruning.load_state_dict(state_dict)


def _loop_of(trainer: Trainer) -> TrainingLength:
    total, batches = trainer.estimated_stepping_batches, trainer.num_training_batches
    per_epoch = None if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
    # Without a limit in steps or epochs, the estimate is infinite or -1.
    return TrainingLength(int(total) if 0 <= total < math.inf else None, per_epoch)
