"""An ordinary forward pass of a twin, which leaves the network unchanged."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.callers import place_of
from compress.graph.rebuild import outline
from compress.graph.untouched import WritesUndone, evaluated_twin, untouched
from compress.inputs import Inputs

_OF_MODULES = frozenset(vars(nn.Module()))
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size)


class RealPass:
    """The outputs of `model` in evaluation mode for the first samples of `example`, with the same random numbers.

    Args:
        most: how many samples.

    given: the inputs of the call: all samples if it runs only on all of them, as when edges refer to nodes by number.
    refusal: why it did not run on two samples; empty if it did.

    Raises:
        InputError: it does not run.
    """

    def __init__(self, model: nn.Module, example: Inputs, most: int = 2) -> None:
        self._model, self._example, self._most = model, example, most
        self._twin = evaluated_twin(model)
        self.given, self.refusal = example.few(most), ""
        try:
            self.output = self._called(self.given)
        except Exception as error:
            shapes = _shapes(self.given)
            places = "; ".join(filter(None, [f"inputs of the shape {shapes}", place_of(error.__traceback__)]))
            said = f"{error} ({places})"
            self.given = replace(example, whole=True)
            try:
                if most == 1 or shapes == _shapes(example):
                    raise
                self.output = self._called(self.given)
            except Exception:
                raise InputError(f"The network does not run on the example: {said}") from error
            self.refusal = (
                f"The network runs on the example, and not on its first two samples: {said}. The samples must be "
                f"counted along dimension {example.batch_dim} of the tensors: for another, give "
                "compress.Inputs(args, kwargs, batch_dim=...). A detector that takes a list of pictures is slimmed "
                "as its backbone and heads (docs/bring-your-own.md)"
            )

    @classmethod
    def on_one(cls, model: nn.Module, example: Inputs) -> "RealPass":
        """A pass on one sample, or on two if the network does not run on one."""
        with suppress(InputError):
            return cls(model, example, 1)
        return cls(model, example)

    def again(self) -> "RealPass":
        """Another pass with the same samples."""
        return RealPass(self._model, self._example, self._most)

    def _called(self, given: Inputs) -> Any:
        devices = sorted({tensor.device.index or 0 for tensor in given.tensors if tensor.is_cuda})
        with torch.no_grad(), torch.random.fork_rng(devices), WritesUndone(self._model):
            torch.default_generator.manual_seed(0)  # torch.manual_seed also prepares devices that are not in use
            if devices:
                torch.cuda.manual_seed_all(0)
            return given.mapped(torch.clone).call(self._twin)

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors in the output, in order."""
        return tensors_in(self.output)

    def fill_caches(self) -> None:
        """Keep the tensors that a forward pass adds to the network's own dicts and lists, such as a mask for a length.

        They are then as after one forward pass on two samples; everything else is unchanged.
        """
        added = self._added()
        if added and self._most == 1 < self._example.rows:
            added = RealPass(self._model, self._example)._added()
        for old, new in added:
            old.update(new) if isinstance(old, dict) else old.extend(new)

    def _added(self) -> list[tuple[Any, Any]]:
        """The network's containers to which the pass adds tensors, each with what it adds."""
        found: list[tuple[Any, Any]] = []
        for module, copied in zip(self._model.modules(), self._twin.modules(), strict=False):
            for name, value in vars(module).items():
                if isinstance(value, dict | list) and name not in _OF_MODULES:
                    found += _additions(value, vars(copied).get(name))
        return found


def runs(model: nn.Module, given: Inputs) -> bool:
    """Whether the network accepts a call; the network does not change."""
    with suppress(InputError), untouched(model) as network:
        RealPass(network, given)
        return True
    return False


def _shapes(given: Inputs) -> str:
    return ", ".join(str(list(tensor.shape)) for tensor in given.tensors)


def tensors_in(value: Any) -> list[Tensor]:
    """In order, however nested."""
    found: list[Tensor] = []
    outline(value, found.append, lambda rebuild, entries: None)
    return found


def _additions(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in new.items():
            if key in old:
                yield from _additions(old[key], value)
            elif _is_data(key) and _is_data(value) and tensors_in(value):
                yield old, {key: value}
    elif isinstance(old, list) and isinstance(new, list) and not old and _is_data(new) and tensors_in(new):
        yield old, new


def _is_data(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_data, [*value, *value.values()]))
    return all(map(_is_data, value)) if isinstance(value, list | tuple) else isinstance(value, (*_PLAIN, Tensor))
