"""Pruning as a callback of the Trainer of Hugging Face: Trainer(..., callbacks=[TrainerPruning(make)])."""

import math
import os
from collections.abc import Sized
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.errors import CheckpointError, InputError, MissingPackageError
from compress.files.atomic import atomic, require_path
from compress.loops.pruning import Maker, Pruning, TrainingLength
from compress.remove.pruner import Pruner

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingPackageError(
        "TrainerPruning needs the package transformers, which is not installed: pip install 'softprune[transformers]'"
    ) from error

STATE = "softprune.pt"
"""The pruner's state, beside the model's in each of the Trainer's checkpoints."""


class TrainerPruning(TrainerCallback):
    """Prunes the Trainer's model while it trains; its state is part of the Trainer's checkpoints."""

    def __init__(self, make: Maker, *, resume_from: str | os.PathLike[str] | None = None) -> None:
        """
        Args:
            make: creates the pruner; called with the model and the loop's length.
            resume_from: the folder of the checkpoint, if `Trainer.train(resume_from_checkpoint=...)` gets one outside
                the output folder, because the Trainer does not pass it to callbacks.
        """
        if resume_from is not None:
            require_path("resume_from", resume_from)
        self._pruning, self._resume_from = Pruning(make), resume_from

    @property
    def pruner(self) -> Pruner | None:
        """The pruner; None before training has started."""
        return self._pruning.pruner

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """
        Raises:
            InputError: the training is too short for the removal, or would not end with its last checkpoint.
            CheckpointError: the checkpoint to resume from has no state of a pruner.
        """
        if args.load_best_model_at_end:
            raise InputError(
                "load_best_model_at_end=True may restore weights from before the removal was complete: set it to "
                "False, and use the model at the end of training"
            )
        if state.global_step:
            self._pruning.load_state_dict(_read(self._state_file(args, state)))
        model, loader = objects["model"], objects["train_dataloader"]
        assert isinstance(model, nn.Module)
        per_epoch = None
        if isinstance(loader, Sized):
            per_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
        self._pruning.begin(model, TrainingLength(state.max_steps, per_epoch), state.global_step)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        self._pruning.step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any) -> None:
        folder, content = _folder(args, state), self._pruning.state_dict()  # all processes have a part of it
        if state.is_world_process_zero and folder.is_dir():
            with atomic(folder / STATE) as temporary, temporary.open("wb") as file:
                torch.save(content, file)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        self._pruning.end()

    def _state_file(self, args: TrainingArguments, state: TrainerState) -> Path:
        named = self._resume_from or args.resume_from_checkpoint
        return (_folder(args, state) if named is None else Path(named)) / STATE


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the Trainer resumes from a checkpoint, which should contain the pruner's state; pass "
            "the checkpoint's folder to TrainerPruning(..., resume_from=FOLDER)"
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged input, torch.load may raise anything
        raise CheckpointError(f"{path} is damaged: resume from another checkpoint") from error
    return state
