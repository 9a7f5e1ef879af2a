"""A decaying mask under which weights keep learning: the product of torch's own methods.

Here `weight_orig` is W, all of which the optimizer updates. The layer uses `weight`, its product with `weight_mask`,
computed before each forward pass, so that the gradient of W is that of the product. `weight_start` does not exist.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.remove.masks import Masked, SoftPruningMethod, tensors


class LearningMethod(SoftPruningMethod):
    """Multiplies a parameter by a mask.

    Unlike torch's own methods it survives `copy.deepcopy` and `pickle` at any moment: outside of a forward pass the
    attribute `weight` is a plain value without a graph.
    """

    def __init__(self, mask_gradients: bool = False) -> None:
        super().__init__(mask_gradients)
        self._caller: nn.Module | None = None
        self._leaf: Tensor | None = None  # used instead of the product, inside `effective`

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_caller": self._caller}

    def __setstate__(self, state: dict[str, object]) -> None:
        LearningMethod.__init__(self)
        self.__dict__.update(state)

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: nn.Module, name: str, keep: Tensor, *, caller: nn.Module | None = None
    ) -> "LearningMethod":
        """As `SoftPruningMethod.apply`. caller: the module that reads the parameter, where `module` is not called."""
        method = super().apply(module, name, keep, fades=False, mask_gradients=False)
        assert isinstance(method, LearningMethod)
        if caller is None:
            module.register_forward_hook(method.drop_graph)
        else:
            method._caller = caller
            caller.register_forward_pre_hook(_OnBehalf(method, module))
            caller.register_forward_hook(_OnBehalf(method, module))
        return method

    def apply_mask(self, module: nn.Module) -> Tensor:
        orig, mask, _ = tensors(module, self._tensor_name)
        return orig * mask if self._leaf is None else self._leaf

    def __call__(self, module: nn.Module, inputs: object) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    def drop_graph(self, module: nn.Module, args: object, output: object) -> None:
        """Forward hook: a tensor with a graph could be neither copied nor pickled with its module."""
        setattr(module, self._tensor_name, getattr(module, self._tensor_name).detach())

    @classmethod
    @torch.no_grad()
    def place(cls, places: Sequence[Masked], factor: float | None = None) -> None:
        """Update the products. factor: the mask of all entries in the sets from now on."""
        for module, method in places:
            assert isinstance(method, cls)
            if factor is not None:
                _, mask, pruned = tensors(module, method._tensor_name)
                method._lower_to(mask, pruned, factor)
            method._expose(module)

    @torch.no_grad()
    def vanish(self, module: nn.Module, which: Tensor | None = None) -> None:
        """As in `SoftPruningMethod`, for the mask alone: the weights underneath belong to the optimizer."""
        _, mask, pruned = tensors(module, self._tensor_name)
        mask.masked_fill_(pruned if which is None else pruned & which, 0.0)
        self._expose(module)

    @torch.no_grad()
    def take(self, module: nn.Module, keep: Tensor) -> None:
        """As in `SoftPruningMethod`: entries that leave keep learning from weight_orig * weight_mask."""
        orig, mask, pruned = tensors(module, self._tensor_name)
        leaves = pruned & keep.to(pruned.device)
        orig.copy_(torch.where(leaves, orig * mask, orig))
        super().take(module, keep)

    @contextmanager
    def effective(self, module: nn.Module) -> Iterator[Tensor]:
        self._expose(module)
        self._leaf = getattr(module, self._tensor_name).clone().requires_grad_(True)
        try:
            yield self._leaf
        finally:
            self._leaf = None
            self._expose(module)

    def remove(self, module: nn.Module) -> None:
        _, mask, pruned = tensors(module, self._tensor_name)
        removed = pruned & (mask == 0)
        super().remove(module)
        getattr(module, self._tensor_name).data.masked_fill_(removed, 0.0)  # the product can be -0.0
        for owner in (module, self._caller or module):
            for hooks in (owner._forward_pre_hooks, owner._forward_hooks):
                for key, hook in list(hooks.items()):
                    if self in (getattr(hook, "__self__", None), getattr(hook, "method", None)):
                        del hooks[key]

    @torch.no_grad()
    def _expose(self, module: nn.Module) -> None:
        """Update the attribute, without a graph."""
        setattr(module, self._tensor_name, self.apply_mask(module))


class _OnBehalf:
    """A hook of the module that reads another one's parameter, in place of the other's own hook."""

    def __init__(self, method: LearningMethod, module: nn.Module) -> None:
        self.method, self.module = method, module

    def __call__(self, caller: nn.Module, args: object, *output: object) -> None:
        if output:
            self.method.drop_graph(self.module, args, *output)
        else:
            self.method(self.module, args)


def caller_of(model: nn.Module, module: nn.Module) -> nn.Module | None:
    """The module that reads the parameters of `module` without calling it, as MultiheadAttention does with out_proj.

    A bare nn.Module, as the module of a program has for each of its former layers, can only be read so.
    """
    if type(module) is nn.Module:
        return model
    for other in model.modules():
        if isinstance(other, nn.MultiheadAttention) and other.out_proj is module:
            return other
    return None
