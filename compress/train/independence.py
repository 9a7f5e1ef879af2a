"""How far codes depend on classes, as losses."""

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1e-4
"""Of the covariance that codes are whitened by, as a share of the mean variance of a node."""

GAUSSIANS, WIDTHS = 3.0, (0.25, 1.0)
"""The weight of each Gaussian kernel beside the linear one, and the variances of both in shares of the mean squared
distance of whitened codes, which is twice their number of nodes."""


def whitened(codes: Tensor) -> Tensor:
    """Codes [N, nodes] with mean 0 and, over the batch, deviation 1 in every direction.

    A code that is whitened hides nothing in a direction of small variance. The covariance of few samples is uncertain,
    so the variances of batches that are not much larger than the number of nodes are moved towards their mean.
    """
    rows, nodes = codes.shape
    codes = codes - codes.mean(0)
    covariance = codes.T @ codes / rows
    ridge = (RIDGE + (nodes / rows) ** 3) * covariance.diagonal().mean() + 1e-12
    factor = torch.linalg.cholesky(covariance + ridge * torch.eye(nodes, dtype=codes.dtype, device=codes.device))
    found: Tensor = torch.linalg.solve_triangular(factor, codes.T, upper=False).T
    return found


def dependence(white: Tensor, classes: Tensor) -> Tensor:
    """The Hilbert-Schmidt independence criterion of whitened codes [N, nodes] and classes [N].

    The kernel of the codes is linear, whose part is the squared covariance with the indicators of the classes, plus
    Gaussian ones of two widths, whose part is 0 only for independence; that of the classes is whether they are equal.
    It is the unbiased estimate of Song et al. ("Feature selection via dependence maximization", 2012, eq. 4): 0 in the
    mean over batches where codes and classes are independent. Zero for fewer than 4 samples.
    """
    count, nodes = white.shape
    if count < 4:
        return white.sum() * 0
    off = 1 - torch.eye(count, dtype=white.dtype, device=white.device)
    one = F.one_hot(classes).to(white.dtype)
    products = white @ white.T
    squares = products.diagonal()
    apart = (squares[:, None] + squares[None] - 2 * products).clamp_min(0) / (2 * nodes)
    kernel = products + GAUSSIANS * sum(torch.exp(-apart / width) for width in WIDTHS)
    codes, labels = kernel * off, (one @ one.T) * off
    together = (codes * labels).sum()
    independent = codes.sum() * labels.sum() / ((count - 1) * (count - 2))
    mixed = codes.sum(0) @ labels.sum(0) * (2 / (count - 2))
    return (together + independent - mixed) / (count * (count - 3))
