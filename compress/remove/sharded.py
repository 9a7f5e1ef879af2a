"""Masks of parameters that are sharded over processes, by `fully_shard` or tensor parallelism.

Such a parameter keeps its name, because `fully_shard` puts whole weights and parts in place by that name. In a module
whose parameter `weight` is being pruned

    weight          Parameter   the optimizer's, a DTensor; an entry of the set is weight_start * weight_mask
    weight_mask, weight_start, weight_pruned
                    buffers     as in `compress.remove.masks`, DTensors with the parameter's placement

Each process masks its part, and nothing is sent. Only weights that learn under a decaying mask need the whole mask in
a forward pass, which is gathered for it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compress.remove.masks import Masked, SoftPruningMethod, parameter_of, tensors
from compress.shards import Reducer, gathered, has_placement_of, local, placed_like, spread


class ShardedMethod(SoftPruningMethod):
    """As `SoftPruningMethod`, for this process's part of a parameter."""

    @classmethod
    def _put_on(cls, module: nn.Module, name: str, mask_gradients: bool) -> "ShardedMethod":
        """Add the mask, and leave the parameter where it is."""
        method = cls(mask_gradients)
        method._tensor_name = name
        module.register_buffer(f"{name}_mask", torch.ones_like(parameter_of(module, name)).detach())
        module.register_forward_pre_hook(method)  # torch.nn.utils.prune finds the method by it
        method._expose(module)
        return method

    def __call__(self, module: nn.Module, inputs: object) -> None:
        """The parameter is in place; `place` follows it where it has become another object."""

    def _take_off(self, module: nn.Module) -> None:
        del module._buffers[f"{self._tensor_name}_mask"]

    def _expose(self, module: nn.Module) -> None:
        self._unhook()
        parameter = parameter_of(module, self._tensor_name)
        if self._mask_gradients and parameter.requires_grad:
            self._hook = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda parameter: self._mask(module, parameter)
            )
        self._exposed = parameter

    def _follow(self, module: nn.Module) -> None:
        if self._exposed is not parameter_of(module, self._tensor_name):
            self._expose(module)

    def _mask(self, module: nn.Module, parameter: Tensor) -> None:
        grad = parameter.grad
        if grad is None or self._scored:
            return
        if not has_placement_of(parameter, grad):
            parameter.grad = grad = placed_like(grad, parameter)
        _, mask, pruned = tensors(module, self._tensor_name)
        self._zero_below(local(grad), mask, pruned)

    def _zero_below(self, grad: Tensor, mask: Tensor, pruned: Tensor) -> None:
        self._zero_set(grad, mask, pruned)


class ShardedLearningMethod(ShardedMethod):
    """As `LearningMethod`, for this process's part of a parameter.

    The parameter is what the optimizer updates, and a removed entry of it is zero. While masks are between 0 and 1, a
    forward pass computes with the product of the whole weight and the whole mask, which is gathered for it; until the
    backward pass, both are in memory.
    """

    def __init__(self, mask_gradients: bool = True) -> None:
        super().__init__(True)  # of removed entries, which no product keeps at zero
        self._decays: tuple[int, bool] | None = None
        """A version of the mask, and whether it was between 0 and 1 somewhere then, in any process."""
        self._handles: list[RemovableHandle] = []

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: nn.Module, name: str, keep: Tensor, *, caller: nn.Module | None = None
    ) -> "ShardedLearningMethod":
        """As `LearningMethod.apply`."""
        method = super().apply(module, name, keep, fades=False)
        assert isinstance(method, cls)
        reader = module if caller is None else caller
        method._handles = [
            reader.register_forward_pre_hook(lambda *_: method._multiply(module)),
            reader.register_forward_hook(lambda *_: method._drop(module), always_call=True),
        ]
        return method

    def _multiply(self, module: nn.Module) -> None:
        """Before a forward pass: let the module compute with the product."""
        name = self._tensor_name
        mask, parameter = module._buffers[f"{name}_mask"], parameter_of(module, name)
        assert mask is not None
        if self._scored or not self._is_decaying(mask):
            return
        factor = mask if has_placement_of(mask, parameter) else spread(gathered(mask), parameter)
        module.__dict__[name] = parameter * factor.to(parameter.dtype)

    def _drop(self, module: nn.Module) -> None:
        """After a forward pass."""
        module.__dict__.pop(self._tensor_name, None)

    @classmethod
    @torch.no_grad()
    def place(cls, places: Sequence[Masked], factor: float | None = None) -> None:
        """factor: the mask of all entries in the sets from now on."""
        for module, method in places:
            method._follow(module)
            if factor is not None:
                _, mask, pruned = tensors(module, method._tensor_name)
                method._lower_to(mask, pruned, factor)
            orig, mask, _ = tensors(module, method._tensor_name)
            orig.masked_fill_(mask == 0, 0.0)

    @torch.no_grad()
    def take(self, module: nn.Module, keep: Tensor) -> None:
        """As in `SoftPruningMethod`: entries that leave keep learning from weight * weight_mask."""
        orig, mask, pruned = tensors(module, self._tensor_name)
        leaves = pruned & local(keep).to(pruned.device)
        orig.copy_(torch.where(leaves, orig * mask, orig))
        super().take(module, keep)

    @contextmanager
    def effective(self, module: nn.Module) -> Iterator[Tensor]:
        with torch.no_grad():
            orig, mask, _ = tensors(module, self._tensor_name)
            before = orig.clone()
            orig.mul_(mask)
        try:
            with super().effective(module) as parameter:
                yield parameter
        finally:
            with torch.no_grad():
                tensors(module, self._tensor_name)[0].copy_(before)

    @torch.no_grad()
    def _take_off(self, module: nn.Module) -> None:
        orig, mask, _ = tensors(module, self._tensor_name)
        orig.mul_(mask).masked_fill_(mask == 0, 0.0)  # the product can be -0.0
        super()._take_off(module)
        for handle in self._handles:
            handle.remove()

    def _is_decaying(self, mask: Tensor) -> bool:
        part = local(mask)
        if self._level is not None and self._level[0] is part and self._level[1] == part._version:
            value = self._level[2]
            if value is not None:  # the same in every process, so that none has to look, or to be asked
                return 0 < value < 1
        if self._decays is None or self._decays[0] != part._version:
            here = bool(((part > 0) & (part < 1)).any())
            self._decays = part._version, bool(Reducer.of([mask]).largest(torch.tensor(int(here))))
        return self._decays[1]

    def _zero_below(self, grad: Tensor, mask: Tensor, pruned: Tensor) -> None:
        grad.masked_fill_(mask == 0, 0.0)
