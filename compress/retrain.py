"""The training loop: one function for the first training and for every retraining; the rest is passed in."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import nn

from compress.data import Batches
from compress.errors import DivergedError, InputError, TargetError
from compress.metrics import Loss

Optimizer = Literal["sgd", "adam", "adamw", "muon"]
LRSchedule = Literal["constant", "cosine", "linear"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Optimization:
    """How weights are updated.

    lr_schedule: spans the whole training; cosine and linear fall to zero at its end.
    warmup: over this share of the training, in [0, 1), the learning rate first rises to what the schedule says.
    precision: bfloat16 computes in it what torch holds to be safe; weights and optimizer stay in float32.
    """

    optimizer: Optimizer = "adamw"
    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    lr_schedule: LRSchedule = "constant"
    warmup: float = 0.0
    precision: Precision = "float32"

    @property
    def elementwise(self) -> bool:
        """Whether what becomes of a weight depends on its own gradients alone: Muon looks at the whole matrix."""
        return self.optimizer != "muon"


@dataclass
class Training:
    """What a training did: the mean loss of each epoch, and optimizer steps."""

    losses: list[float] = field(default_factory=list)
    steps: int = 0


def train(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    steps: int,
    optimization: Optimization,
    *,
    generator: torch.Generator,
    after_step: Callable[[int], None] = lambda step: None,
    on_step: Callable[[int, float, float], None] = lambda step, value, lr: None,
) -> Training:
    """Train all parameters that require a gradient for `steps` optimizer steps.

    Args:
        batches: one epoch of (input, target) pairs per call; the last epoch may end in its middle.
        loss: (output, target) -> scalar.
        generator: decides the order of the samples, and nothing else does.
        after_step: called with the number of steps done once the weights are updated: pruning happens here.
        on_step: called after that with (steps done, loss, learning rate of the step): progress is shown here.

    Raises:
        DivergedError: the loss is NaN or infinite. The model then holds the weights of the latest start of an epoch
            from which the loss was still finite.
        InputError: no parameter requires a gradient.
    """
    optimizers = _optimizers(model, optimization)
    schedulers = [found for optimizer in optimizers for found in _schedulers(optimizer, optimization, max(1, steps))]
    model.zero_grad()
    result = Training()
    good_step, good = 0, copy.deepcopy(model.state_dict())
    model.train()
    while result.steps < steps:
        epoch_start, state = result.steps, copy.deepcopy(model.state_dict())
        values = []
        for inputs, target in batches(generator):
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=optimization.precision == "bfloat16"):
                value = loss(model(inputs), target)
            values.append(value.item())
            if not math.isfinite(values[-1]):
                model.load_state_dict(good)
                raise DivergedError(
                    f"the loss became {values[-1]} at step {result.steps + 1} of {steps}; the weights of step "
                    f"{good_step}, the last good ones, are kept: try a learning rate below {optimization.lr:g}"
                )
            good_step, good = epoch_start, state
            value.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad()
            lr = optimizers[0].param_groups[0]["lr"]  # where there are two optimizers, both have the same
            for scheduler in schedulers:
                scheduler.step()
            result.steps += 1
            after_step(result.steps)
            on_step(result.steps, values[-1], lr)
            if result.steps == steps:
                break
        result.losses.append(sum(values) / len(values))
    return result


@contextmanager
def only_trainable(model: nn.Module, patterns: Sequence[str]) -> Iterator[None]:
    """Freeze every parameter whose qualified name matches none of the shell patterns; undone at the end.

    Raises:
        TargetError: a pattern that matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise TargetError(f"trainable: {pattern!r} matches no parameter; there are {', '.join(names)}")
    frozen = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _schedulers(
    optimizer: torch.optim.Optimizer, settings: Optimization, steps: int
) -> list[torch.optim.lr_scheduler.LRScheduler]:
    """Each multiplies the learning rate by its own ratio from step to step, so that they can be laid on each other."""
    found: list[torch.optim.lr_scheduler.LRScheduler] = []
    if settings.lr_schedule == "cosine":
        found.append(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps))
    elif settings.lr_schedule == "linear":
        found.append(torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps))
    if rising := round(settings.warmup * steps):
        found.append(torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), total_iters=rising))
    return found


def _optimizers(model: nn.Module, settings: Optimization) -> list[torch.optim.Optimizer]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("nothing to train: no parameter of the model requires a gradient")
    lr, decay = settings.lr, settings.weight_decay
    # Fused updates halve the time of a step on the paper's autoencoder.
    match settings.optimizer:
        case "sgd":
            return [torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=decay, fused=True)]
        case "adam":
            return [torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=True)]
        case "adamw":
            return [torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)]
        case "muon":
            return _muon(parameters, settings)


def _muon(parameters: Sequence[nn.Parameter], settings: Optimization) -> list[torch.optim.Optimizer]:
    """Muon for matrices, and AdamW for what is none; both with updates of the same size at the same learning rate."""
    lr, decay = settings.lr, settings.weight_decay
    matrices = [parameter for parameter in parameters if parameter.dim() == 2]
    others = [parameter for parameter in parameters if parameter.dim() != 2]
    found: list[torch.optim.Optimizer] = []
    if matrices:
        found.append(torch.optim.Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        found.append(torch.optim.AdamW(others, lr=lr, weight_decay=decay, fused=True))
    return found
