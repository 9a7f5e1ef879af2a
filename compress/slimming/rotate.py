"""Rotate a width by an orthogonal matrix, so that directions of it can be cut; see `graph.rotation`."""

import torch
from torch import Tensor, nn

from compress.graph.rotation import Rotation


@torch.no_grad()
def fold_gains(model: nn.Module, rotation: Rotation) -> None:
    """Fold gains into the layers behind them, in place; every such gain becomes 1."""
    for name, gain in rotation.folded.items():
        weight = model.get_parameter(name).movedim(rotation.turned[name], -1)
        weight.mul_(model.get_parameter(gain.tensor).flatten() + gain.offset)
    for gain in rotation.folded.values():
        model.get_parameter(gain.tensor).fill_(1 - gain.offset)


@torch.no_grad()
def rotate(model: nn.Module, rotation: Rotation, axes: Tensor) -> None:
    """Rotate the tensors that write and read the nodes, in place; fold gains that differ between nodes first.

    Args:
        axes: Q [nodes, nodes], orthogonal; its columns are the new nodes.
    """
    for name, dim in rotation.turned.items():
        weight = model.get_parameter(name)
        turned = weight.movedim(dim, -1).double() @ axes.to(weight.device, torch.float64)
        weight.copy_(turned.movedim(-1, dim))


def changed(rotation: Rotation) -> list[str]:
    """The parameters that `fold_gains` and `rotate` change."""
    return [*rotation.turned, *dict.fromkeys(gain.tensor for gain in rotation.folded.values())]
