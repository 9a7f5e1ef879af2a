"""Optimizers and learning rates by name, as recipes have them."""

from collections.abc import Sequence

import torch
from torch import nn

from compress.errors import InputError
from compress.train.eager_optimizers import SGD, Adam, AdamW, Muon
from compress.train.optimization import Optimization


def optimizers(model: nn.Module, settings: Optimization) -> list[torch.optim.Optimizer]:
    """Optimizers of all parameters that require a gradient; Muon comes with a second one.

    Raises:
        InputError: no parameter requires a gradient.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("nothing to train: no parameter of the model requires a gradient")
    lr, decay = settings.lr, settings.weight_decay
    # Fused updates halve the time of a step on the paper's autoencoder.
    match settings.optimizer:
        case "sgd":
            return [SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=decay, fused=True)]
        case "adam":
            return [Adam(parameters, lr=lr, weight_decay=decay, fused=True)]
        case "adamw":
            return [AdamW(parameters, lr=lr, weight_decay=decay, fused=True)]
        case "muon":
            return _muon(parameters, settings)


def schedulers(
    optimizer: torch.optim.Optimizer, settings: Optimization, steps: int
) -> list[torch.optim.lr_scheduler.LRScheduler]:
    """Each multiplies the learning rate by its own ratio from step to step, so that they can be combined."""
    found: list[torch.optim.lr_scheduler.LRScheduler] = []
    if settings.lr_schedule == "cosine":
        found.append(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps))
    elif settings.lr_schedule == "linear":
        found.append(torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps))
    if rising := round(settings.warmup * steps):
        found.append(torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), total_iters=rising))
    return found


def _muon(parameters: Sequence[nn.Parameter], settings: Optimization) -> list[torch.optim.Optimizer]:
    """Muon for matrices, and AdamW for the others; both with updates of the same size at the same learning rate."""
    lr, decay = settings.lr, settings.weight_decay
    matrices = [parameter for parameter in parameters if parameter.dim() == 2]
    others = [parameter for parameter in parameters if parameter.dim() != 2]
    found: list[torch.optim.Optimizer] = []
    if matrices:
        found.append(Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        found.append(AdamW(others, lr=lr, weight_decay=decay, fused=True))
    return found
