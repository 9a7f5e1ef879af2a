"""Layers whose tensors get their sizes at the first call, such as torch.nn.LazyLinear."""

from itertools import chain

from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter


def first_without_size(model: nn.Module) -> str | None:
    """The name of the first parameter or buffer that has no size yet; None if there is none."""
    tensors = chain(model.named_parameters(), model.named_buffers())
    without = (name for name, tensor in tensors if isinstance(tensor, UninitializedParameter | UninitializedBuffer))
    return next(without, None)
