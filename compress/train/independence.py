"""How far codes depend on classes, as losses."""

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 1e-4
"""Of the covariance that codes are whitened by, as a share of the mean variance of a node."""


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
    return torch.linalg.solve_triangular(factor, codes.T, upper=False).T


def linear_dependence(white: Tensor, classes: Tensor) -> Tensor:
    """The Hilbert-Schmidt independence criterion of whitened codes [N, nodes] and classes [N], with linear kernels.

    It is the squared norm of the covariance between the codes and the indicators of the classes, in the unbiased
    estimate of Song et al. ("Feature selection via dependence maximization", 2012, eq. 4): 0 in the mean over batches
    if, and only if, no linear function of the codes depends on the class. Zero for fewer than 4 samples.
    """
    count = len(white)
    if count < 4:
        return white.sum() * 0
    off = 1 - torch.eye(count, dtype=white.dtype, device=white.device)
    one = F.one_hot(classes).to(white.dtype)
    codes, labels = (white @ white.T) * off, (one @ one.T) * off
    together = (codes * labels).sum()
    apart = codes.sum() * labels.sum() / ((count - 1) * (count - 2))
    mixed = codes.sum(0) @ labels.sum(0) * (2 / (count - 2))
    return (together + apart - mixed) / (count * (count - 3))
