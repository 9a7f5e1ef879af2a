"""The state_dict of a network during pruning, under its original names."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compress.errors import InputError
from compress.remove.masks import parameter_of
from compress.remove.pruner import Pruner
from compress.select.targets import Target
from compress.shards import local, mapped, spread

_BUFFERS = ("mask", "pruned", "start")


class PlainNames:
    """Gives the pruner's model a plain `state_dict()`: `weight` with its effective value, without the pruner's tensors.

    `load_state_dict` accepts the same. It does not restore the sets and the decaying values; `hidden` and `reveal` are
    for them.
    """

    def __init__(self, pruner: Pruner, model: nn.Module) -> None:
        """
        Args:
            model: the loop's model, whose names count; the pruner may have a wrapper around it.

        Raises:
            InputError: the pruner prunes something outside of the model.
        """
        self._targets = [_renamed(target, model) for target in pruner.targets]
        self._learns = pruner.removal.learns
        to_plain = partial(_to_plain, self._learns)
        self._hooks: list[RemovableHandle] = []
        for target in pruner.targets:
            module, name = target.module, target.name
            self._hooks += [
                module.register_state_dict_post_hook(partial(to_plain, name)),  # type: ignore[no-untyped-call]
                module.register_load_state_dict_pre_hook(partial(_from_plain, name)),  # type: ignore[no-untyped-call]
            ]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def values(self) -> dict[str, Tensor]:
        """The effective values of the parameters."""
        return {target.path: _acting(target.module, target.name, self._learns).clone() for target in self._targets}

    def hidden(self) -> dict[str, Tensor]:
        """The tensors missing from the plain state_dict, by their names in the full one."""
        found = {}
        for target in self._targets:
            for suffix in _BUFFERS:
                buffer = target.module._buffers[f"{target.name}_{suffix}"]
                if buffer is not None:
                    found[f"{target.path}_{suffix}"] = buffer
            if self._learns:  # a value that learns under a mask cannot be derived from the product
                found[f"{target.path}_orig"] = parameter_of(target.module, target.name).detach()
        return found

    @torch.no_grad()
    def reveal(self, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        """Restore the results of `hidden` and `values`.

        Raises:
            InputError: they belong to another network or pruner.
        """
        mine = self.hidden()
        shapes = {name: tuple(tensor.shape) for name, tensor in mine.items()}
        if shapes != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
            raise InputError("this state belongs to another run: its masks have other parameters or shapes")
        for target in self._targets:
            orig = parameter_of(target.module, target.name)
            local(orig).copy_(local(spread(weights[target.path], orig)))
        for name, tensor in mine.items():
            local(tensor).copy_(local(spread(tensors[name], tensor)))


def _renamed(target: Target, model: nn.Module) -> Target:
    names = [name for name, module in model.named_modules() if module is target.module]
    if not names:
        raise InputError(f"the pruner prunes {target.path}, which is not a part of the model that the loop trains")
    return Target(f"{names[0]}.{target.name}" if names[0] else target.name, target.module, target.name)


def _acting(module: nn.Module, name: str, learns: bool) -> Tensor:
    orig, mask = parameter_of(module, name).detach(), module._buffers[f"{name}_mask"]
    assert mask is not None
    # Decaying values are in the parameter itself; learning ones are under their mask.
    return mapped(torch.mul, orig, mask) if learns else orig


def _to_plain(
    learns: bool, name: str, module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: object
) -> None:
    key = f"{prefix}{name}"
    orig = state.pop(f"{key}_orig" if f"{key}_orig" in state else key)  # a sharded parameter keeps its name
    mask = state.pop(f"{key}_mask")
    for suffix in _BUFFERS:
        state.pop(f"{key}_{suffix}", None)
    state[key] = mapped(torch.mul, orig.detach(), mask) if learns else orig


def _from_plain(name: str, module: nn.Module, state: dict[str, Any], prefix: str, *others: object) -> None:
    key = f"{prefix}{name}"
    if key not in state:
        return
    if f"{name}_orig" in module._parameters:
        state[f"{key}_orig"] = state.pop(key)
    for suffix in _BUFFERS:
        buffer = module._buffers[f"{name}_{suffix}"]
        if buffer is not None:
            state[f"{key}_{suffix}"] = buffer
