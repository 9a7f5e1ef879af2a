"""Split a Linear layer into a bottleneck and its reader, so that directions of its inputs can be cut."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from compress.errors import TargetError

Affine = tuple[Tensor, Tensor]  # (weight [out, in], bias [out])

AXES, READER = "axes", "reader"


@torch.no_grad()
def take_apart(
    model: nn.Module, name: str, axes: Affine | None = None, reader: Affine | None = None
) -> tuple[str, int]:
    """Replace the Linear layer `name` by two Linear layers; the width between them is the number of its inputs.

    Args:
        axes, reader: weight and bias of the two layers; if absent zeros, to be loaded into.

    Returns:
        (the name of the first of the two, whose outputs are the bottleneck's nodes; how many they are).

    Raises:
        TargetError: the layer does not exist, or is not a Linear.
    """
    layer = dict(model.named_modules()).get(name)
    if type(layer) is not nn.Linear or not name:
        found = "is missing" if layer is None else f"is a {type(layer).__name__}"
        raise TargetError(f"The layer {name!r}, which reads the nodes, {found}; only a Linear can be taken apart.")
    like = layer.weight
    width = like.shape[1]
    parts = {AXES: (width, axes), READER: (like.shape[0], reader)}
    made = OrderedDict[str, nn.Module]()
    for part, (rows, values) in parts.items():
        # On "meta", since initial values would be drawn from the user's random numbers; `to_empty` would import sympy.
        linear = nn.Linear(width, rows, device="meta", dtype=like.dtype)
        weight, bias = values or (like.new_zeros(rows, width), like.new_zeros(rows))
        linear.weight = nn.Parameter(weight.to(like, copy=True))
        linear.bias = nn.Parameter(bias.to(like, copy=True))
        made[part] = linear.train(layer.training)
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, nn.Sequential(made))
    return f"{name}.{AXES}", width


def is_taken_apart(model: nn.Module, name: str) -> bool:
    """Whether the layer `name` is the first of two by which `take_apart` has replaced one."""
    path, _, leaf = name.rpartition(".")
    return leaf == AXES and [key for key, _ in model.get_submodule(path).named_children()] == [AXES, READER]
