"""`compensate`: the best linear prediction of pruned nodes, folded into the layers that read them.

The kept nodes predict a pruned node z_j as c_j + sum_k B_jk z_k, by least squares over scoring data. A layer that reads
the nodes with the weights V then takes V_k + sum_j V_j B_jk, and its bias rises by sum_j V_j c_j. Reconstruction by
least squares is that of He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compress.batches import Pairs
from compress.select.moments import moments

COMPENSATION_SAMPLES = 5000
"""Training samples on which the prediction of pruned nodes is fitted."""

_RIDGE = 1e-6
"""Share of the mean square that is added to the diagonal: nodes that are copies have no single best prediction."""


@torch.no_grad()
def compensate(model: nn.Module, readers: Mapping[str, Tensor], batches: Pairs) -> None:
    """Fold the prediction of pruned nodes into the layers that read them, in place; pruned columns do not change.

    Args:
        readers: layer that reads the nodes, a Linear or Conv -> bool [nodes], True = kept.
        batches: scoring data to fit the prediction on; targets are not looked at.

    Raises:
        TargetError: a reader that is neither, or whose inputs are not the nodes one by one.
    """
    for name, found in moments(model, {name: len(keep) for name, keep in readers.items()}, batches).items():
        layer = model.get_submodule(name)
        _fold(layer, prediction(found, readers[name], intercept=_has_room(layer)))


def prediction(moments: Tensor, keep: Tensor, *, intercept: bool = True) -> Tensor:
    """The best linear prediction of pruned nodes from kept ones.

    Args:
        moments: sums of products [nodes + 1, nodes + 1], the last row and column those of a constant 1.
        keep: bool [nodes].

    Returns:
        [nodes + 1, nodes + 1] in float64: row j has the coefficients of node j; a kept node predicts itself. The last
        column is the constant.
    """
    given = torch.cat([keep, keep.new_tensor([intercept])])
    pruned = torch.cat([~keep, keep.new_tensor([False])])
    moments = moments.double()
    among = moments[given][:, given]
    ridge = _RIDGE * among.diagonal().mean() * torch.eye(len(among), dtype=among.dtype)
    result = torch.eye(len(moments), dtype=torch.float64)
    result[pruned] = 0.0
    to_given = torch.linalg.solve(among + ridge, moments[given][:, pruned]).T
    result[pruned.nonzero(), given.nonzero().flatten()] = to_given
    return result


def _has_room(layer: nn.Module) -> bool:
    """Whether a constant can be added to the nodes: there is a bias, and no padding of zeros without it."""
    padding: str | tuple[int, ...] = getattr(layer, "padding", ())
    padded = padding != "valid" if isinstance(padding, str) else any(padding)
    return layer.bias is not None and not padded


def _fold(layer: nn.Module, made_of: Tensor) -> None:
    """V times `made_of`, over the layer's inputs; a kernel's positions all alike."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    made_of = made_of.to(weight.device)
    pruned = made_of.diagonal()[:-1] == 0
    folded = torch.einsum("oi...,ij->oj...", weight.double(), made_of[:-1])
    constant = folded[:, -1].reshape(len(weight), -1).sum(1)
    folded = folded[:, :-1]
    folded[:, pruned] = weight[:, pruned].double()
    weight.copy_(folded)
    if isinstance(bias, Tensor):
        bias.add_(constant.to(bias))
