"""Criteria: a score for every entry of a weight, larger = keep. Plain functions, tensor in, tensor out.

Those that hang on data take a statistic of the loss's gradient g beside the weight; `gradients.py` measures it.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Criterion = Callable[[Tensor], Tensor]


def magnitude(weight: Tensor) -> Tensor:
    """|w|, the oldest criterion and the paper's."""
    return weight.detach().abs()


ENTRYWISE = (magnitude,)
"""Criteria that look at one entry at a time, whatever the shape: `compress.select.scores.Scores` may compute them."""


def scaled_magnitude(weight: Tensor, fan_in: int | None = None) -> Tensor:
    """|w| * sqrt(fan-in): layers whose weights are small only because they are many don't go first.

    Initial weights have a standard deviation of about 1 / sqrt(fan-in) (LeCun 1998; Glorot & Bengio 2010), which this
    takes out again.

    Args:
        fan_in: how many inputs an output adds up; by default weight[0].numel(), as for a Linear or a convolution. A
            transposed convolution lies the other way round: see the function `fan_in`.
    """
    return weight.detach().abs() * math.sqrt(weight[0].numel() if fan_in is None else fan_in)


def fan_in(module: nn.Module, weight: Tensor) -> int:
    """How many inputs an output of `module` adds up; 1 for a bias, which is a weight on the constant 1.

    A transposed convolution's weight is [in, out / groups, *kernel]: its outputs add up in / groups * kernel inputs
    at stride 1, and no more at a larger one.
    """
    if weight.dim() < 2:
        return 1
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return weight.shape[0] // module.groups * weight[0, 0].numel()
    return weight[0].numel()


def lamp(weight: Tensor) -> Tensor:
    """w_u^2 / sum of w_v^2 over all v with |w_v| >= |w_u|, within the tensor: float64.

    Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", 2021. Each tensor's largest entry has the
    score 1, so that a global ranking never takes a whole layer.
    """
    squares = weight.detach().double().flatten().square()
    ascending = squares.sort().values
    upward = ascending.flip(0).cumsum(0).flip(0)
    # The first of several equal ones stands before all that are as large.
    rest = upward[torch.searchsorted(ascending, squares)]
    return torch.where(squares > 0, squares / rest, 0.0).view(weight.shape)


def random(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform in [0, 1): the baseline that every criterion must beat."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def taylor(weight: Tensor, mean_abs: Tensor) -> Tensor:
    """Mean over batches of |w * g|, the change of the loss to first order; `mean_abs` is the mean of |g|.

    Molchanov et al., "Importance estimation for neural network pruning", 2019.
    """
    return weight.detach().abs() * mean_abs


def taylor_square(weight: Tensor, mean_square: Tensor) -> Tensor:
    """Mean over batches of (w * g)^2; `mean_square` is the mean of g^2 (Molchanov et al. 2019, eq. 8)."""
    return weight.detach().square() * mean_square


def obd(weight: Tensor, fisher: Tensor) -> Tensor:
    """w^2 * h / 2, the rise of the loss at an optimum to second order.

    LeCun, Denker & Solla, "Optimal brain damage", 1990. For h, the diagonal of the Hessian, stands the empirical
    Fisher information: the mean of the squared gradients of single samples.
    """
    return weight.detach().square() * fisher / 2


def snip(weight: Tensor, mean: Tensor) -> Tensor:
    """|w * g| with g the gradient of the mean loss (Lee et al., "SNIP: single-shot network pruning", 2019).

    Lee divides by the sum over the network, which changes no ranking.
    """
    return (weight.detach() * mean).abs()


def row_norm(weight: Tensor, dim: int = 0) -> Tensor:
    """Euclidean norm of each node's incoming weights: [nodes] from the weight of its layer, nodes along `dim`."""
    other = [axis for axis in range(weight.dim()) if axis != dim]
    return weight.detach().square().sum(dim=other).sqrt()


def norms(incoming: Sequence[Tensor], outgoing: Sequence[Tensor]) -> Tensor:
    """Norm of what leads into a node times norm of what leads out of it: [nodes] from matrices [nodes, entries].

    The product and not the sum, because it stays the same when a node's incoming weights are multiplied by c and its
    outgoing ones divided by it, which for ReLU (and near 0 for tanh) leaves the network's outputs as they are.
    """
    rows, columns = (torch.cat([matrix.detach() for matrix in side], dim=1) for side in (incoming, outgoing))
    return row_norm(rows) * row_norm(columns)
