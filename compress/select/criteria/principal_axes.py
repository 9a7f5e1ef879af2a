"""Principal axes of a layer's inputs: directions instead of nodes, the first of which vary most.

With Q the eigenvectors of the covariance of the layer's inputs z, V z = (V Q)(Q^T z): the layer can be taken apart into
axes and their reader without any change. Without the last axes it is the best linear bottleneck of that width for z
(Pearson, 1901).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.errors import TargetError
from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.coupling import Coupling
    from compress.select.criteria.criterion import NodeScores
    from compress.select.scoring import Scoring


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
    from torch import linalg

    count = moments[-1, -1].double()
    mean = moments[-1, :-1].double() / count
    _, vectors = linalg.eigh(moments[:-1, :-1].double() / count - mean.outer(mean))
    axes = vectors.flip(1).T
    weight = weight.detach().double()
    offset = weight @ mean + (0.0 if bias is None else bias.detach().double())
    return (axes, -axes @ mean), (weight @ axes.T, offset)


@dataclass(frozen=True)
class PrincipalAxes(Criterion):
    """Prunes directions instead of nodes: the layer that reads the nodes is taken apart along the principal axes of its
    inputs, and the axes along which the samples vary least are pruned first."""

    words = ("principal_axes",)
    needs_data = True
    watches_layers = True
    measures = False

    samples: Samples = samples_option(5000)

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        """The widest axis is the first node."""
        import torch

        return {coupling: torch.arange(coupling.size, 0, -1.0) for coupling in coupled}

    def restructure(self, coupled: Sequence[Coupling], scoring: Scoring, *, restore: bool = False) -> list[str]:
        return [self._take_apart(coupling, scoring, restore) for coupling in coupled]

    def _take_apart(self, coupling: Coupling, scoring: Scoring, restore: bool) -> str:
        """Take apart the layer that reads these nodes; the name of the layer whose nodes are the axes."""
        from torch import nn

        from compress.select.moments import moments
        from compress.slimming.bottleneck import is_taken_apart
        from compress.slimming.edits import insert_bottleneck

        model, reader = scoring.model, _reader_of(coupling)
        if restore:
            return reader if is_taken_apart(model, reader) else insert_bottleneck(model, reader)
        found = moments(model, {reader: coupling.size}, scoring.batches(self, self.samples))[reader]
        linear = model.get_submodule(reader)
        assert isinstance(linear, nn.Linear)
        return insert_bottleneck(model, reader, *principal_axes(linear.weight, linear.bias, found))


def _reader_of(coupling: Coupling) -> str:
    from compress.graph.flow import layer_of

    readers = {layer_of(member.tensor) for member in coupling.members if member.role == "reads"}
    if len(readers) != 1:
        raise TargetError(
            f"{len(readers)} layers read the nodes of {coupling.name!r} ({', '.join(sorted(readers))}); principal_axes "
            "is for nodes that a single Linear reads"
        )
    (reader,) = readers
    return reader
