"""Pruning in a loop with Accelerate; a protocol describes the accelerator, so that it need not be imported."""

import math
from typing import Any, Protocol

from torch import nn

from compress.loops.pruning import Maker, Pruning, TrainingLength
from compress.options import check
from compress.remove.pruner import Pruner


class Accelerator(Protocol):
    """The part of accelerate.Accelerator that is used here."""

    gradient_accumulation_steps: int

    @property
    def sync_gradients(self) -> bool: ...
    def unwrap_model(self, model: nn.Module) -> Any: ...
    def register_for_checkpointing(self, *objects: Any) -> None: ...


class AcceleratePruning:
    """Prunes a model that `accelerator.prepare` has wrapped; its state is part of `accelerator.save_state`."""

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, make: Maker, *, batches: int | None = None, epochs: int = 1
    ) -> None:
        """
        Args:
            make: creates the pruner; called with the model as it was before `prepare`, and the loop's length.
            batches, epochs: the length of the loop. `batches` is the length of the prepared loader, on this process;
                None if it is unknown.

        Raises:
            InputError: the loop is too short for the removal.
        """
        check("batches", batches, int | None, ge=1)
        check("epochs", epochs, int, ge=1)
        self._accelerator, self._pruning = accelerator, Pruning(make)
        per_epoch = None if batches is None else math.ceil(batches / accelerator.gradient_accumulation_steps)
        loop = TrainingLength(None if per_epoch is None else per_epoch * epochs, per_epoch)
        self._pruning.begin(accelerator.unwrap_model(model), loop)
        accelerator.register_for_checkpointing(self)

    @property
    def pruner(self) -> Pruner:
        assert self._pruning.pruner is not None
        return self._pruning.pruner

    def step(self) -> None:
        """Call after `optimizer.step()`, whether or not Accelerate has skipped that step."""
        if self._accelerator.sync_gradients:
            self._pruning.step()

    def finalize(self) -> None:
        """Set the pruned entries to exactly zero and restore plain parameters."""
        self._pruning.end()

    def state_dict(self) -> dict[str, Any]:
        return self._pruning.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Called by `accelerator.load_state`, after the model has its weights."""
        self._pruning.load_state_dict(state)
