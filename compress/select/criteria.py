"""Criteria: a score for every entry of a weight, larger = keep. Plain functions, tensor in, tensor out."""

from collections.abc import Callable

import torch
from torch import Tensor

Criterion = Callable[[Tensor], Tensor]


def magnitude(weight: Tensor) -> Tensor:
    """|w|, the oldest criterion and the paper's."""
    return weight.detach().abs()


def random(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform in [0, 1): the baseline that every criterion must beat."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def row_norm(weight: Tensor, dim: int = 0) -> Tensor:
    """Euclidean norm of each node's incoming weights: [nodes] from the weight of its layer, nodes along `dim`."""
    other = [axis for axis in range(weight.dim()) if axis != dim]
    return weight.detach().square().sum(dim=other).sqrt()
