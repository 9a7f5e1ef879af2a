"""The layers of a coupling in the network: those that compute its nodes, read them, or show them."""

import torch
from torch import Tensor, nn

from compress.errors import TargetError
from compress.graph.coupling import Coupling, Member
from compress.graph.flow import layer_of
from compress.select.activations import Tap


def readers(coupling: Coupling) -> list[Member]:
    return [member for member in coupling.members if member.role == "reads"]


def writers(model: nn.Module, coupling: Coupling) -> list[Member]:
    """Members whose rows compute the nodes; biases, scales and shifts only where there is nothing else."""
    found = [member for member in coupling.members if member.role == "writes"]
    return [member for member in found if values(model, member).dim() > 1] or found


def computing(model: nn.Module, coupling: Coupling) -> list[Member]:
    """Those of `writers` that are Linear or Conv layers; embeddings and positions only where there are none."""
    found = writers(model, coupling)
    modules = dict(model.named_modules())
    return [member for member in found if _is_watched(modules.get(layer_of(member.tensor)))] or found


def values(model: nn.Module, member: Member) -> Tensor:
    module, name = place_of(model, member.tensor)
    return getattr(module, name).detach()  # type: ignore[no-any-return]  # under a mask it is not a parameter


def place_of(model: nn.Module, tensor: str) -> tuple[nn.Module, str]:
    """The module and the attribute that the qualified name of a tensor represents."""
    path, _, name = tensor.rpartition(".")
    return model.get_submodule(path), name


def taps(model: nn.Module, coupling: Coupling) -> list[Tap]:
    """All layers that read the nodes, which is behind the activation function; or else the output of a writer.

    Raises:
        TargetError: the nodes cannot be distinguished there.
    """
    reading = readers(coupling)
    modules = dict(model.named_modules())
    if reading and all(_is_watched(modules.get(layer_of(member.tensor))) for member in reading):
        return [Tap(layer_of(member.tensor), "input", _owner(model, member)) for member in reading]
    writer = computing(model, coupling)[0]
    return [Tap(layer_of(writer.tensor), "output", _owner(model, writer))]


def _is_watched(module: nn.Module | None) -> bool:
    """MultiheadAttention reads the weights of its out_proj without calling it."""
    called = not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return called and isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))


def _owner(model: nn.Module, member: Member) -> Tensor:
    """The node that each feature which the member's layer reads, or writes, belongs to.

    Raises:
        TargetError: some belong to other nodes, or the layer does not show features.
    """
    name, side = layer_of(member.tensor), "in" if member.role == "reads" else "out"
    module = model.get_submodule(name)
    features = getattr(module, f"{side}_features", getattr(module, f"{side}_channels", None))
    if features != member.outer * member.size * member.inner:
        raise TargetError(
            f"the {'inputs' if side == 'in' else 'outputs'} of {name!r} are not just the nodes in question, which "
            "cannot be watched there one by one; use the criterion magnitude, norms or taylor"
        )
    every = torch.arange(member.size)[None, :, None]
    return every.expand(member.outer, member.size, member.inner).flatten()
