"""The training loop, for the first training and for every retraining."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import nn

from compress.batches import Batches, pairs
from compress.errors import DivergedError, TargetError
from compress.files.spill import Aside
from compress.inputs import Inputs
from compress.tasks import Loss
from compress.train import random_state
from compress.train.divergence import BATCH, broken_weights, first_broken, listed
from compress.train.optimization import Optimization
from compress.train.optimizers import optimizers, schedulers
from compress.train.ranks import ALONE, Ranks
from compress.wording import did_you_mean


@dataclass
class TrainingRecord:
    """The record of a training: the mean loss of each epoch, over its samples, and the optimizer steps."""

    losses: list[float] = field(default_factory=list)
    steps: int = 0


class _Weights(NamedTuple):
    """The model's state at some moment, and how many steps it had taken."""

    step: int
    state: Aside


def train(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    steps: int,
    optimization: Optimization,
    *,
    generator: torch.Generator,
    after_step: Callable[[int], None] = lambda step: None,
    on_step: Callable[[int, float, float, int], None] = lambda step, value, lr, rows: None,
    on_start: Callable[["Loop"], None] = lambda loop: None,
    ranks: Ranks = ALONE,
) -> TrainingRecord:
    """Train all parameters that require a gradient for `steps` optimizer steps.

    Args:
        batches: one epoch of (input, target) per call; the last epoch may end in its middle.
        loss: (output, target) -> scalar.
        generator: the only source of the order of the samples.
        after_step: called with the number of steps done once the weights are updated: pruning happens here.
        on_step: called after that with (steps done, loss, learning rate of the step, samples of its batch): progress
            is shown here, and checkpoints are made.
        on_start: called with the loop before its first step: a resumed run loads its state here.
        ranks: this process among those that train the same model together, and have the same batches.

    Raises:
        DivergedError: the loss is NaN or infinite, or the weights are in the end. The model then holds the weights of
            the latest epoch's start at which the loss was still finite.
        InputError: no parameter requires a gradient.
    """
    loop = Loop(model, batches, loss, steps, optimization, generator, ranks)
    on_start(loop)
    return loop.run(after_step, on_step)


class Loop:
    """A training that can be interrupted after any step, saved, loaded and resumed, bit for bit.

    Its state is everything that the coming steps depend on beside the model's own state: the position in the order of
    the samples, the optimizers, the schedulers, random numbers, the losses so far and the last good weights.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        loss: Loss,
        steps: int,
        optimization: Optimization,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> None:
        """The arguments are those of `train`."""
        self._model, self._batches, self._loss, self._steps = model, batches, loss, steps
        self._optimization, self._generator, self._ranks = optimization, generator, ranks
        self._forward = ranks.wrapped(model)
        self._optimizers = optimizers(model, optimization)
        self._schedulers = [
            found for optimizer in self._optimizers for found in schedulers(optimizer, optimization, max(1, steps))
        ]
        self.training = TrainingRecord()
        self._losses: list[tuple[float, int]] = []  # of this epoch's batches, each with its number of samples
        self._began: dict[str, Any] = {}  # order and random state at the start of this epoch
        self._epoch_start = self._good = _Weights(0, Aside(model.state_dict()))

    def run(
        self, after_step: Callable[[int], None], on_step: Callable[[int, float, float, int], None]
    ) -> TrainingRecord:
        done = self.training
        self._model.zero_grad()
        self._model.train()
        while self._losses or done.steps < self._steps:
            for given, target in islice(pairs(self._rest_of_epoch(), self._model), self._steps - done.steps):
                loss, lr = self._update(given, target)
                self._losses.append((loss, given.rows))
                done.steps += 1
                after_step(done.steps)
                on_step(done.steps, loss, lr, given.rows)
            # The last batch of an epoch may be smaller, and every sample counts alike.
            done.losses.append(weighted_mean(self._losses))
            self._losses = []
        if done.steps and (broken := listed(broken_weights(self._model))):
            raise self._diverged(f"the last step, {done.steps}, left NaN or infinite values in {broken}")
        return done

    def state_dict(self) -> dict[str, Any]:
        """Between two steps."""
        return {
            "steps": self.training.steps,
            "epoch_losses": self.training.losses,
            "losses": self._losses,
            "began": self._began,
            "chance": random_state.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
            "good": (self._good.step, self._good.state.mapped()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Before the first step; the caller loads the model's own state."""
        self.training = TrainingRecord(list(state["epoch_losses"]), state["steps"])
        self._losses = [(loss, rows) for loss, rows in state["losses"]]
        self._began = state["began"]
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for scheduler, saved in zip(self._schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        step, good = state["good"]
        self._epoch_start = self._good = _Weights(step, Aside(good))  # the same one after a step
        random_state.load_state_dict(state["chance"])

    def _rest_of_epoch(self) -> Iterator[tuple[Any, Any]]:
        """The remaining batches of this epoch."""
        if not self._losses:
            self._began = {"order": self._generator.get_state(), "chance": random_state.state_dict()}
            if self.training.steps != self._epoch_start.step:
                self._epoch_start = _Weights(self.training.steps, Aside(self._model.state_dict()))
            return self._batches(self._generator)
        # Draw the random numbers of the batches that are done again, which restores the random state after them.
        now = random_state.state_dict()
        self._generator.set_state(self._began["order"])
        random_state.load_state_dict(self._began["chance"])
        batches = self._batches(self._generator, len(self._losses))
        random_state.load_state_dict(now)
        return batches

    def _update(self, given: Inputs, target: Any) -> tuple[float, float]:
        """One step of the optimizers: (the loss before it, its learning rate)."""
        precision = torch.autocast(
            given.tensors[0].device.type, torch.bfloat16, enabled=self._optimization.precision == "bfloat16"
        )
        given, target, weight = self._ranks.share(given, target)
        with precision:
            value = self._loss(given.call(self._forward), target)
        if weight != 1.0:
            value = value * weight
        mean = self._ranks.mean(value)
        value.backward()  # type: ignore[no-untyped-call]
        found = mean.read()  # while an accelerator computes the gradients
        if not math.isfinite(found):
            self._model.zero_grad()
            with precision:
                culprit = first_broken(self._model, given, target)
            raise self._diverged(
                f"the loss became {found} at step {self.training.steps + 1} of {self._steps}"
                + (f", where {culprit} not finite" if culprit else ""),
                data=culprit in BATCH,
            )
        self._good = self._epoch_start
        for optimizer in self._optimizers:
            optimizer.step()
        self._model.zero_grad()
        lr = self._optimizers[0].param_groups[0]["lr"]  # where there are two optimizers, both have the same
        for scheduler in self._schedulers:
            scheduler.step()
        return found, lr

    def _diverged(self, what: str, *, data: bool = False) -> DivergedError:
        """Give the model its last good weights back."""
        self._model.load_state_dict(self._good.state.mapped())
        advice = "look at the data" if data else f"try a learning rate below {self._optimization.lr:g}"
        return DivergedError(f"{what}; the weights of step {self._good.step}, the last good ones, are kept: {advice}")


def weighted_mean(losses: Sequence[tuple[float, int]]) -> float:
    """Of (loss of a batch, its number of samples)."""
    return sum(loss * rows for loss, rows in losses) / sum(rows for _, rows in losses)


@contextmanager
def only_trainable(model: nn.Module, patterns: Sequence[str]) -> Iterator[None]:
    """Freeze every parameter whose qualified name matches none of the shell patterns, until the end of the block.

    A masked parameter has the name that it has without its mask.

    Raises:
        TargetError: a pattern that matches nothing.
    """
    parameters = {_plain_name(model, name): parameter for name, parameter in model.named_parameters()}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            names = ", ".join(parameters)
            near = did_you_mean(pattern, parameters)
            raise TargetError(f"trainable: the pattern {pattern!r} matches no parameter; there is {names}{near}")
    frozen = [
        parameter
        for name, parameter in parameters.items()
        if parameter.requires_grad and not any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _plain_name(model: nn.Module, name: str) -> str:
    """`layer.weight` for the `layer.weight_orig` that torch's prune API makes of it."""
    plain = name.removesuffix("_orig")
    layer, _, own = plain.rpartition(".")
    return plain if f"{own}_mask" in model.get_submodule(layer)._buffers else name
