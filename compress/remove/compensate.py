"""What can be said linearly need not be forgotten: pruned nodes' best linear prediction goes into the next layer.

Of a pruned node z_j the kept ones say c_j + sum_k B_jk z_k, by least squares over scoring data. A layer that reads
the nodes with the weights V then takes V_k + sum_j V_j B_jk, and its bias rises by sum_j V_j c_j. Reconstruction by
least squares is that of He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from compress.errors import TargetError
from compress.evaluation_mode import evaluation_mode

_RIDGE = 1e-6
"""Share of the mean square that is added to the diagonal: nodes that say the same have no single best prediction."""


@torch.no_grad()
def compensate(model: nn.Module, readers: Mapping[str, Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Fold the prediction of what is pruned into the layers that read it, in place; what is pruned is left alone.

    Args:
        readers: layer that reads the nodes, a Linear or Conv -> bool [nodes], what is kept of its inputs.
        batches: (input, target) pairs to fit the prediction on.

    Raises:
        TargetError: a reader that is neither, or whose inputs are not the nodes one by one.
    """
    for name, found in moments(model, {name: len(keep) for name, keep in readers.items()}, batches).items():
        layer = model.get_submodule(name)
        _fold(layer, prediction(found, readers[name], intercept=_has_room(layer)))


def moments(
    model: nn.Module, readers: Mapping[str, int], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Sums of products [nodes + 1, nodes + 1], in float64, of what each reader gets and a constant 1, in that order.

    Args:
        readers: layer, a Linear or Conv -> how many nodes it reads. The positions of a picture count as samples.

    Raises:
        TargetError: as `compensate`.
    """
    layers = {name: _reader(model, name, nodes) for name, nodes in readers.items()}
    found: dict[str, Tensor] = {}
    with evaluation_mode(model), ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(_gather(name, found)).remove)
        for inputs, _ in batches:
            model(inputs)
    return found


def prediction(moments: Tensor, keep: Tensor, *, intercept: bool = True) -> Tensor:
    """The best linear prediction of pruned nodes from kept ones.

    Args:
        moments: sums of products [nodes + 1, nodes + 1], the last row and column those of a constant 1.
        keep: bool [nodes].

    Returns:
        [nodes + 1, nodes + 1] in float64: row j says what node j is made of; a kept node of itself. The last column
        is the constant.
    """
    given = torch.cat([keep, keep.new_tensor([intercept])])
    gone = torch.cat([~keep, keep.new_tensor([False])])
    moments = moments.double()
    among = moments[given][:, given]
    ridge = _RIDGE * among.diagonal().mean() * torch.eye(len(among), dtype=among.dtype)
    result = torch.eye(len(moments), dtype=torch.float64)
    result[gone] = 0.0
    result[gone.nonzero(), given.nonzero().flatten()] = torch.linalg.solve(among + ridge, moments[given][:, gone]).T
    return result


def _reader(model: nn.Module, name: str, nodes: int) -> nn.Module:
    layer = model.get_submodule(name)
    inputs = {nn.Linear: "in_features", nn.modules.conv._ConvNd: "in_channels"}
    width = next((getattr(layer, size) for kind, size in inputs.items() if isinstance(layer, kind)), None)
    if width is None or getattr(layer, "transposed", False) or getattr(layer, "groups", 1) != 1:
        raise TargetError(f"{name!r} reads the nodes and is no plain Linear or Conv: what it reads is not the nodes")
    if width != nodes:
        raise TargetError(f"{name!r} reads {nodes} nodes through {width} inputs: it must read them one by one")
    return layer


def _gather(name: str, sums: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0].movedim(-1 if isinstance(layer, nn.Linear) else 1, -1).flatten(0, -2).double().cpu()
        values = torch.cat([values, values.new_ones(len(values), 1)], dim=1)
        products = values.T @ values
        sums[name] = sums[name] + products if name in sums else products

    return hook


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
    gone = made_of.diagonal()[:-1] == 0
    folded = torch.einsum("oi...,ij->oj...", weight.double(), made_of[:-1])
    constant = folded[:, -1].reshape(len(weight), -1).sum(1)
    folded = folded[:, :-1]
    folded[:, gone] = weight[:, gone].double()
    weight.copy_(folded)
    if isinstance(bias, Tensor):
        bias.add_(constant.to(bias))
