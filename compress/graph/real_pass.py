"""An ordinary forward pass that leaves the network as it was, by a twin of it."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.callers import place_of
from compress.graph.rebuild import outline
from compress.graph.untouched import WritesUndone, evaluated_twin, untouched
from compress.inputs import Inputs

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size)


class RealPass:
    """What `model` computes in evaluation mode from `given`, with the same random numbers each time.

    Raises:
        InputError: it does not run.
    """

    def __init__(self, model: nn.Module, given: Inputs) -> None:
        self._model = model
        self._twin = evaluated_twin(model)
        devices = sorted({tensor.device.index or 0 for tensor in given.tensors if tensor.is_cuda})
        try:
            with torch.no_grad(), torch.random.fork_rng(devices), WritesUndone(model):
                torch.manual_seed(0)
                self.output = given.mapped(torch.clone).call(self._twin)
        except Exception as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in given.tensors)
            places = "; ".join(filter(None, [f"inputs of the shape {shapes}", place_of(error.__traceback__)]))
            raise InputError(f"The network does not run on the example: {error} ({places})") from error

    @property
    def tensors(self) -> list[Tensor]:
        """Those in the output, in order."""
        return tensors_in(self.output)

    def fill_caches(self) -> None:
        """Leave in the network's own dicts and lists the tensors that a forward pass adds, such as a mask for a length.

        They are as after one forward pass then, and everything else is as before.
        """
        for (_, module), copied in zip(self._model.named_modules(), self._twin.modules(), strict=False):
            for name in vars(module).keys() - vars(nn.Module()).keys():
                _fill(vars(module)[name], vars(copied).get(name))


def runs(model: nn.Module, given: Inputs) -> bool:
    """Whether the network takes a call; it is as it was before."""
    with suppress(InputError), untouched(model) as network:
        RealPass(network, given)
        return True
    return False


def tensors_in(value: Any) -> list[Tensor]:
    """In order, however nested."""
    found: list[Tensor] = []
    outline(value, found.append, lambda rebuild, entries: None)
    return found


def _fill(old: Any, new: Any) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in new.items():
            if key in old:
                _fill(old[key], value)
            elif _is_data(key) and _is_data(value) and tensors_in(value):
                old[key] = value
    elif isinstance(old, list) and isinstance(new, list) and not old and _is_data(new) and tensors_in(new):
        old += new


def _is_data(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_data, [*value, *value.values()]))
    return all(map(_is_data, value)) if isinstance(value, list | tuple) else isinstance(value, (*_PLAIN, Tensor))
