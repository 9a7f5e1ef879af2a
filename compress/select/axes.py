"""Principal axes of what a layer reads: directions instead of nodes, the first of which vary most.

With Q the eigenvectors of the covariance of the layer's inputs z, V z = (V Q)(Q^T z): the layer can be taken apart into
axes and their reader without any change. Leaving the last axes out is the best that a linear bottleneck of that width
can do for z (Pearson, 1901).
"""

from torch import Tensor, linalg


def principal_axes(weight: Tensor, bias: Tensor | None, moments: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Take a Linear layer apart.

    Args:
        weight: V, [out, nodes].
        bias: [out], or None.
        moments: sums of products [nodes + 1, nodes + 1] of the layer's inputs, the last row and column those of a
            constant 1.

    Returns:
        (weight [nodes, nodes], bias [nodes]) of the axes, the widest first, with mean 0 over the data, and (weight
        [out, nodes], bias [out]) of their reader; all in float64.
    """
    count = moments[-1, -1].double()
    mean = moments[-1, :-1].double() / count
    _, vectors = linalg.eigh(moments[:-1, :-1].double() / count - mean.outer(mean))
    axes = vectors.flip(1).T
    weight = weight.detach().double()
    offset = weight @ mean + (0.0 if bias is None else bias.detach().double())
    return (axes, -axes @ mean), (weight @ axes.T, offset)
