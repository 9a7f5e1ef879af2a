"""Principal axes of what a layer reads: directions instead of nodes, the first of which say most.

With C the covariance of the layer's inputs z and V its weight, the eigenvectors U of V C V^T are the principal axes of
the layer's output before its bias. V z = U (U^T V z), so that the layer can be taken apart into axes and their
reader without any change; leaving the last axes out is the best that a linear bottleneck of that width can do for
the layer's output (Eckart & Young, 1936).
"""

import torch
from torch import Tensor


def principal_axes(weight: Tensor, moments: Tensor, bias: Tensor | None) -> tuple[tuple[Tensor, Tensor], ...]:
    """Take a Linear layer apart.

    Args:
        weight: V, [out, nodes].
        moments: sums of products [nodes + 1, nodes + 1] of the layer's inputs, the last row and column those of a
            constant 1.
        bias: [out], or None.

    Returns:
        (weight [axes, nodes], bias [axes]) of the axes, strongest first, with mean 0 over the data, and (weight
        [out, axes], bias [out]) of their reader, where axes = min(nodes, out); all in float64.
    """
    count = moments[-1, -1].double()
    mean = moments[-1, :-1].double() / count
    covariance = moments[:-1, :-1].double() / count - mean.outer(mean)
    weight = weight.detach().double()
    _, vectors = torch.linalg.eigh(weight @ covariance @ weight.T)
    reader = vectors.flip(1)[:, : min(weight.shape)]
    axes = reader.T @ weight
    offset = weight @ mean + (0.0 if bias is None else bias.detach().double())
    return (axes, -axes @ mean), (reader, offset)
