"""`untouched`: passes through a network that change neither it nor the state it shares with others."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from compress.graph.eager_mode import EagerMode
from compress.graph.shared_state import SharedState
from compress.graph.twin import Network, twin


@contextmanager
def untouched(model: Network, *, faked: bool = False) -> Iterator[Network]:
    """A twin of `model` in evaluation mode, without gradients, that computes with the same parameters.

    Afterwards the parameters have their earlier values, and so has the shared state, such as globals and function
    caches.

    Args:
        faked: whether the twin runs on tensors of torch's tracers, which never write into parameters.
    """
    shared = SharedState(model)
    network = evaluated_twin(model)
    try:
        with torch.no_grad(), nullcontext() if faked else WritesUndone(model):
            yield network
    finally:
        shared.set_back()


def evaluated_twin(model: Network, replaced: Mapping[Tensor, Tensor] | None = None) -> Network:
    """A twin in evaluation mode; by default with the same parameters and separate buffers."""
    network = twin(model, {one: one for one in model.parameters()} if replaced is None else replaced)
    for module in network.modules():
        module.training = False
    return network


class WritesUndone(EagerMode):
    """Restore the values of the parameters, which a network shares with its twins, afterwards."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shared = {parameter.untyped_storage()._cdata: parameter for parameter in model.parameters()}
        self._before: dict[Tensor, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            for value in (*args, *(kwargs or {}).values()):
                parameter = self._shared.get(value.untyped_storage()._cdata) if isinstance(value, Tensor) else None
                if parameter is not None and parameter not in self._before:
                    self._before[parameter] = parameter.detach().clone()
        return func(*args, **(kwargs or {}))

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter, before in self._before.items():
                parameter.copy_(before)
