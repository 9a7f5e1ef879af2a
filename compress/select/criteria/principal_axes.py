"""Principal axes of a layer's inputs: directions instead of nodes, the first of which vary most.

With Q the eigenvectors of the covariance of the layer's inputs z, V z = (V Q)(Q^T z): the layer can be taken apart into
axes and their reader without any change. Without the last axes it is the best linear bottleneck of that width for z
(Pearson, 1901).

A residual stream x is rotated as a whole: what writes it is multiplied by Q, and what reads it by Q^T, which changes
nothing under root-mean-square norms (Ashkboos et al., "SliceGPT", 2024). Q is then of the second moments of all that
the layers read of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.errors import TargetError
from compress.select.criteria.criterion import Criterion, Samples, samples_option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.batches import Pair, Pairs
    from compress.graph.coupling import Coupling, Couplings
    from compress.graph.rotation import Rotation
    from compress.select.criteria.criterion import NodeScores
    from compress.select.pruned import Pruned
    from compress.select.scoring import Scoring

_ALLOWED = 1e-5
"""How far outputs may move by a rotation, of how much they vary: as `slim` allows."""


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


def axes_of(moments: Tensor) -> Tensor:
    """The orthogonal Q [nodes, nodes] in float64 whose columns are the axes of a stream, the widest first.

    Args:
        moments: sums of products [nodes, nodes] of its values, without a mean taken off: no bias could add it again.
    """
    from torch import linalg

    vectors: Tensor = linalg.eigh(moments.double())[1]
    return vectors.flip(1)


@dataclass(frozen=True)
class PrincipalAxes(Criterion):
    """Prunes directions instead of nodes: the layer that reads the nodes is taken apart along the principal axes of its
    inputs, or the residual stream that several layers read is rotated onto those of its values, and the axes along
    which the samples vary least are pruned first."""

    words = ("principal_axes",)
    needs_data = True
    watches_layers = True
    measures = False

    samples: Samples = samples_option(5000)

    def score_nodes(self, coupled: Sequence[Coupling], scoring: Scoring) -> NodeScores:
        """The widest axis is the first node."""
        import torch

        return {coupling: torch.arange(coupling.size, 0, -1.0) for coupling in coupled}

    def restructure(
        self,
        coupled: Sequence[Coupling],
        scoring: Scoring,
        known: Couplings,
        earlier: Pruned,
        *,
        restore: bool = False,
    ) -> list[str]:
        from compress.graph.rotation import rotation_of
        from compress.select.targets import Weights, resolve

        model = scoring.model
        readers = {coupling: _single_reader(model, coupling) for coupling in coupled}
        if restore:  # the weights, rotated, are loaded later
            return [_restored(model, readers[coupling], coupling) for coupling in coupled]
        rotations = {found: rotation_of(model, known, found) for found, reader in readers.items() if reader is None}
        resolve(model, Weights(tuple(name for rotation in rotations.values() for name in rotation.turned)))
        for rotation in rotations.values():
            self._rotate(rotation, scoring, earlier)
        return [
            coupling.name if reader is None else self._take_apart(reader, coupling, scoring)
            for coupling, reader in readers.items()
        ]

    def _take_apart(self, reader: str, coupling: Coupling, scoring: Scoring) -> str:
        """Take apart the layer that reads these nodes; the name of the layer whose nodes are the axes."""
        from torch import nn

        from compress.select.moments import moments
        from compress.slimming.edits import insert_bottleneck

        model = scoring.model
        found = moments(model, {reader: coupling.size}, scoring.batches(self, self.samples))[reader]
        linear = model.get_submodule(reader)
        assert isinstance(linear, nn.Linear)
        return insert_bottleneck(model, reader, *principal_axes(linear.weight, linear.bias, found))

    def _rotate(self, rotation: Rotation, scoring: Scoring, earlier: Pruned) -> None:
        """Rotate a stream onto its axes, in a copy, which is proven to compute the same before the network changes.

        Raises:
            TargetError: entries that are pruned already would come back.
            ProofError: the rotated network computes something else.
        """
        import torch

        from compress.graph.twin import copied
        from compress.proof import inputs_like, prove_same
        from compress.select.moments import moments
        from compress.slimming.rotate import changed, fold_gains, rotate

        model = scoring.model
        dense, batches = _precise(model, scoring.batches(self, self.samples))
        turned = copied(dense)
        fold_gains(turned, rotation)
        found = moments(turned, dict.fromkeys(rotation.signals, rotation.size), batches)
        rotate(turned, rotation, axes_of(torch.stack([*found.values()]).sum(0)[:-1, :-1]))
        _require_still_pruned(turned, earlier)
        given, _ = next(_precise(model, scoring.batches(self, 2))[1])
        prove_same(dense, turned, inputs_like(dense, given, (2,)), _ALLOWED)
        with torch.no_grad():
            for name in changed(rotation):
                model.get_parameter(name).copy_(turned.get_parameter(name))


def _precise(model: nn.Module, batches: Pairs) -> tuple[nn.Module, Iterator[Pair]]:
    """A copy, and batches for it, in float32 where they are in less: rounding would hide what a proof looks for."""
    from compress.batches import pairs
    from compress.graph.twin import copied
    from compress.proof.precision import COARSE

    def precise(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.dtype in COARSE else tensor

    copy = copied(model)
    if any(parameter.dtype in COARSE for parameter in model.parameters()):
        return copy.float(), ((given.mapped(precise), target) for given, target in pairs(batches, model))
    return copy, pairs(batches, model)


def _single_reader(model: nn.Module, coupling: Coupling) -> str | None:
    """The Linear layer that alone reads the nodes; None if there are several layers, or another one."""
    from torch import nn

    from compress.graph.flow import layer_of

    readers = {layer_of(member.tensor) for member in coupling.members if member.role == "reads"}
    modules = dict(model.named_modules())
    found = [reader for reader in readers if type(modules.get(reader)) is nn.Linear]
    return found[0] if len(readers) == len(found) == 1 else None


def _restored(model: nn.Module, reader: str | None, coupling: Coupling) -> str:
    from compress.slimming.bottleneck import is_taken_apart
    from compress.slimming.edits import insert_bottleneck

    if reader is None:
        return coupling.name
    return reader if is_taken_apart(model, reader) else insert_bottleneck(model, reader)


def _require_still_pruned(turned: nn.Module, earlier: Pruned) -> None:
    for name, keep in earlier.keep.items():
        if bool(turned.get_parameter(name).detach()[~keep].any()):
            raise TargetError(
                f"{name!r} has pruned entries, which principal_axes would bring back, since it mixes the nodes of a "
                "residual stream; prune the stream in the first stage"
            )
