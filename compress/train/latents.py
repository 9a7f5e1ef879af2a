"""The latent space of a network: the outputs of one layer, and those of its nodes that remain."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.batches import Attributed, Pairs, pairs
from compress.errors import DataError, InputError, TargetError
from compress.evaluation_mode import evaluation_mode
from compress.graph.network import require_parameters
from compress.options import check, shown
from compress.select.node_selection import NodeSelection
from compress.select.selection import Selection
from compress.train.probes import Codes
from compress.wording import did_you_mean


@dataclass(frozen=True)
class Latent:
    """The nodes of one layer.

    layer: its name; its outputs are [N, nodes].
    kept: returns which nodes are not pruned at present, bool [nodes].
    """

    model: nn.Module
    layer: str
    kept: Callable[[], Tensor]

    @classmethod
    def of(cls, selection: Selection) -> "Latent":
        """The nodes that a selection chooses from.

        Raises:
            InputError: it chooses from weights.
            TargetError: it chooses from nodes of several layers.
        """
        if not isinstance(selection, NodeSelection):
            raise InputError('the pruner prunes weights; a latent space is made of nodes: use compress.nodes("latent")')
        return cls(selection.model, latent_layer(selection), lambda: next(iter(selection.coupled.values())))


def latent_layer(selection: NodeSelection) -> str:
    """The one layer whose nodes are selected.

    Raises:
        TargetError: there are several.
    """
    every = [name for names in selection.names.values() for name in names]
    if len(every) != 1:
        shown = ", ".join(every[:5]) + (", ..." if len(every) > 5 else "")
        raise TargetError(f"the target has the nodes of several layers ({shown}); a latent space is those of one layer")
    return every[0]


@contextmanager
def outputs_of(model: nn.Module, layer: str, *, training: bool) -> Iterator[list[Tensor]]:
    """Within, the list holds the output of the layer in the latest forward pass, [N, nodes].

    Args:
        training: whether passes in training mode are recorded, or those in evaluation mode; the others are not.

    Raises:
        TargetError: there is no such layer.
    """
    found: list[Tensor] = []
    modules = dict(model.named_modules())
    if layer not in modules:
        raise TargetError(f"the network has no layer {layer!r}{did_you_mean(layer, list(modules))}")

    def record(module: nn.Module, args: object, output: object) -> None:
        if module.training == training:
            found[:] = [_checked(output, layer)]

    handle = modules[layer].register_forward_hook(record)
    try:
        yield found
    finally:
        handle.remove()
        found.clear()


def _checked(output: object, layer: str) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2:
        shown = f"an output of shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise TargetError(f"the layer {layer!r} gives {shown}; the nodes of a latent space are outputs [N, nodes]")
    return output


def codes(model: nn.Module, layer: str, batches: Pairs, *, kept: Tensor | None = None) -> Codes:
    """The outputs of a layer for all samples, with their attributes.

    Args:
        model: in any mode; it runs in evaluation mode.
        layer: its name, such as "latent".
        batches: with `Attributed` targets; a loader, or a list.
        kept: which nodes are taken, bool [nodes]; all of them if None.

    Raises:
        InputError: an option is wrong.
        TargetError: there is no such layer, or its outputs are not [N, nodes].
        DataError: there is no sample, or a target has no attributes.
    """
    require_parameters(model)
    check("layer", layer, str)
    if not isinstance(batches, Iterable) or isinstance(batches, type | nn.Module | str | Mapping | Tensor):
        raise InputError(f"batches: found {shown(batches)}; expected an iterable of batches, such as a loader")
    if kept is not None and not (isinstance(kept, Tensor) and kept.dtype == torch.bool and kept.ndim == 1):
        raise InputError(f"kept: found {shown(kept)}; expected a bool tensor [nodes]")
    found: list[Tensor] = []
    attributes: dict[str, list[Tensor]] = {}
    with outputs_of(model, layer, training=False) as seen, evaluation_mode(model):
        for given, target in pairs(batches, model):
            if not isinstance(target, Attributed) or not isinstance(target.attributes, Mapping):
                raise DataError(
                    f"batches: found {shown(target)} as a target; attributes are given as "
                    "compress.Attributed(target, {name: classes})"
                )
            given.call(model)
            if not seen:
                raise TargetError(f"the network does not call its layer {layer!r}")
            found.append(seen[0] if kept is None else seen[0][:, kept.to(seen[0].device)])
            for name, classes in target.attributes.items():
                attributes.setdefault(name, []).append(torch.as_tensor(classes).to(seen[0].device))
    if not found:
        raise DataError("batches: there is no sample.")
    return Codes(torch.cat(found).float(), {name: torch.cat(values) for name, values in attributes.items()})
