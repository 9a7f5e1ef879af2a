"""`evaluation_mode`: every module of a network in evaluation mode, and back again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Put every module of `model` into evaluation mode; each gets its own mode back afterwards.

    The flags are set directly: `eval()` would lose the modes of submodules that differ from the network's own, such as
    a frozen BatchNorm, and the module of an exported program refuses it.

    Args:
        gradients: whether autograd may record what happens inside; else it is off.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
