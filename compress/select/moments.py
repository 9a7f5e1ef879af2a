"""Second moments of the inputs of layers, over scoring data."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from compress.batches import Pairs, pairs
from compress.errors import InputError, TargetError
from compress.evaluation_mode import evaluation_mode
from compress.wording import count_of


@torch.no_grad()
def moments(model: nn.Module, readers: Mapping[str, int], batches: Pairs) -> dict[str, Tensor]:
    """Sums of products [nodes + 1, nodes + 1], in float64, of what each reader gets and a constant 1, in that order.

    Args:
        readers: layer, a Linear or Conv -> how many nodes it reads. The positions of a picture count as samples.

    Raises:
        TargetError: a reader that is neither, whose inputs are not the nodes one by one, or that takes no part in the
            forward pass.
        InputError: no scoring data.
    """
    layers = {name: _reader(model, name, nodes) for name, nodes in readers.items()}
    found: dict[str, Tensor] = {}
    samples = 0
    with ExitStack() as stack, evaluation_mode(model):
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(_gather(name, found)).remove)
        for given, _ in pairs(batches, model):
            given.call(model)
            samples += given.rows
    if not samples:
        raise InputError("no scoring data to fit the nodes on: `batches` gave none")
    if missing := [name for name in layers if name not in found]:
        raise TargetError(f"layer {missing[0]!r} is not used in the forward pass: its inputs cannot be seen")
    return found


def _reader(model: nn.Module, name: str, nodes: int) -> nn.Module:
    layer = model.get_submodule(name)
    inputs = {nn.Linear: "in_features", nn.modules.conv._ConvNd: "in_channels"}
    width = next((getattr(layer, size) for kind, size in inputs.items() if isinstance(layer, kind)), None)
    if width is None or getattr(layer, "transposed", False) or getattr(layer, "groups", 1) != 1:
        raise TargetError(f"{name!r} reads the nodes and is not a plain Linear or Conv: its inputs are not the nodes")
    if width != nodes:
        raise TargetError(
            f"{name!r} reads {count_of(nodes, 'node')} through {count_of(width, 'input')}: it must read them one by one"
        )
    return layer


def _gather(name: str, sums: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0].movedim(-1 if isinstance(layer, nn.Linear) else 1, -1).flatten(0, -2).double().cpu()
        values = torch.cat([values, values.new_ones(len(values), 1)], dim=1)
        products = values.T @ values
        sums[name] = sums[name] + products if name in sums else products

    return hook
