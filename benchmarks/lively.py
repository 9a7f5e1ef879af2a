"""Networks with random weights whose outputs depend on their inputs.

Fresh networks often compute a constant: norms with the statistics of nothing, branches that start multiplied by zero.
A proof on them would prove little.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Parameters that start as constants become random, so that no branch is multiplied by nearly zero."""
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or (parameter.numel() > 1 and parameter.std() > 1e-3):
            continue
        if name.endswith("bias"):
            parameter.normal_(0, 0.1)
        elif parameter.ndim < 2:
            parameter.uniform_(0.5, 1.5)
        else:
            parameter.normal_(0, max(parameter[0].numel(), 1) ** -0.5)


@torch.no_grad()
def calibrate(model: nn.Module, call: Callable[[nn.Module], object], batches: int = 2) -> None:
    """Batch norms take the statistics of `batches` batches, on each of which `call` runs the model."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for _ in range(batches):
        call(model)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum if momentum is not None else 0.1
        norm.eval()
