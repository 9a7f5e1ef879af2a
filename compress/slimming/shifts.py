"""Subtract from biases over positions the constants that they add to all nodes of a stream (see `graph.shifts`)."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from compress.graph.coupling import Coupling
from compress.graph.flow import Shift
from compress.graph.untouched import untouched
from compress.inputs import Inputs


def with_shifts_removed(
    model: nn.Module,
    given: Inputs,
    shifts: Iterable[Shift],
    dead: Mapping[Coupling, Tensor],
    tensors: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The tensors with corrected biases; one pass gives the constants, the layer's outputs at a dead node."""
    nodes = {coupling.factor: int(indices[0]) for coupling, indices in dead.items()}
    wanted = {shift.layer: shift for shift in shifts if shift.factor in nodes}
    changed = dict(tensors)
    if not wanted:
        return changed

    def read(layer: str, output: Tensor) -> None:
        shift = wanted[layer]
        at_dead_node = output.select(shift.place, nodes[shift.factor])
        changed[f"{layer}.bias"] = tensors[f"{layer}.bias"].detach() - at_dead_node[0]

    with untouched(model) as network:
        for layer in wanted:
            network.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, output, layer=layer: read(layer, output)
            )
        with torch.no_grad():
            given.few().mapped(Tensor.clone).call(network)
    return changed
