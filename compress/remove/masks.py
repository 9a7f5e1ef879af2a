"""Soft pruning as a method of torch.nn.utils.prune: chosen entries fade to zero in the parameter itself.

Menzies & Siebert, "Soft Pruning and Latent Space Dimensionality Reduction", equation 1:

    W  <-  W * M * x  +  (W + dW) * (1 - M)          M = 1 where W is to go

In a module whose parameter `weight` is being pruned

    weight_orig     Parameter   the optimizer's parameter, as before; pruned entries hold their faded value
    weight_mask     buffer      bool, False where an entry is gone, that is exactly zero
    weight_pruned   buffer      bool, the paper's M
    weight_start    buffer      where pruned, what the entry fades from; 0 elsewhere
    weight          attribute   `weight_orig` itself

so that weight == weight_orig * weight_mask at every moment, as in torch's own methods, and a forward pass costs what it
costs without pruning. After each step of the optimizer `place` puts the pruned entries where they belong.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.hooks import RemovableHandle

from compress.errors import TargetError


class SoftPruningMethod(prune.BasePruningMethod):
    """Entries of a parameter that get no gradient and stand where `place` puts them."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, mask_gradients: bool = True) -> None:
        self._mask_gradients = mask_gradients
        self._exposed: nn.Parameter | None = None
        self._hook: RemovableHandle | None = None
        self._keep: Tensor | None = None
        self._keep_of: tuple[Tensor, int] | None = None  # the set that `_keep` was made from, and its version

    def __getstate__(self) -> dict[str, Any]:
        """A copy of a module has a Parameter of its own, without our hook: its first forward pass sees to that."""
        return {"_tensor_name": self._tensor_name, "_mask_gradients": self._mask_gradients}

    def __setstate__(self, state: dict[str, Any]) -> None:
        SoftPruningMethod.__init__(self)
        self.__dict__.update(state)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask.bool()

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: nn.Module, name: str, keep: Tensor, *, fades: bool = True, mask_gradients: bool = True
    ) -> "SoftPruningMethod":
        """Mark entries of `module.name` as pruned; until `place` is called they keep their values.

        Args:
            keep: bool tensor of the parameter's shape, False where the parameter is to go.
            fades: whether entries fade; if they only ever go to zero, what they fade from is not kept.
            mask_gradients: whether pruned entries get a gradient of zero; `place` undoes what the optimizer makes of
                them either way.

        Raises:
            TargetError: there is no such parameter, it is pruned already, or `keep` does not fit it.
        """
        parameter = _prunable(module, name)
        if keep.shape != parameter.shape or keep.dtype != torch.bool:
            raise TargetError(
                f"the mask for {name!r} of {type(module).__name__} is {keep.dtype} {tuple(keep.shape)}; "
                f"it must be bool {tuple(parameter.shape)}"
            )
        pruned = (~keep).to(parameter.device)
        module.register_buffer(f"{name}_pruned", pruned)
        module.register_buffer(f"{name}_start", parameter.detach() * pruned if fades else None)
        with _keeping_place(module, name, f"{name}_orig"):
            method: SoftPruningMethod = super().apply(module, name, mask_gradients)  # type: ignore[no-untyped-call]
            method._expose(module)
        return method

    def apply_mask(self, module: nn.Module) -> Tensor:
        """What acts: the parameter itself."""
        return tensors(module, self._tensor_name)[0]

    def __call__(self, module: nn.Module, inputs: object) -> None:
        """Before a forward pass: nothing is computed, but the module may be a copy, or have other tensors now."""
        if self._exposed is not module._parameters[f"{self._tensor_name}_orig"] and not torch.compiler.is_compiling():
            self._expose(module)

    @classmethod
    @torch.no_grad()
    def place(cls, places: "Sequence[Place]", factor: float) -> None:
        """Put the pruned entries at `factor` times what they fade from, whatever the optimizer has made of them."""
        origs: list[Tensor] = [tensors(module, method._tensor_name)[0] for module, method in places]
        keeps = [method._kept(module) for module, method in places]
        torch._foreach_mul_(origs, keeps)
        starts = [start for module, method in places if (start := method._start_of(module)) is not None]
        if factor and starts:  # either all fade or none
            torch._foreach_add_(origs, starts, alpha=factor)

    @torch.no_grad()
    def fade_by(self, module: nn.Module, factor: float) -> None:
        """What the pruned entries fade from is itself multiplied by `factor`."""
        start = self._start_of(module)
        if start is not None:
            start.mul_(factor)

    @torch.no_grad()
    def vanish(self, module: nn.Module, which: Tensor) -> None:
        """Of the pruned entries, those that `which` marks become exactly zero, and stay it while they are pruned."""
        orig, mask, pruned = tensors(module, self._tensor_name)
        gone = pruned & which
        mask.masked_fill_(gone, False)
        # Not multiplied: -3.0 * 0.0 is -0.0, equal to zero but not for whoever looks at the bits.
        orig.masked_fill_(gone, 0.0)
        start = self._start_of(module)
        if start is not None:
            start.masked_fill_(gone, 0.0)

    @torch.no_grad()
    def take(self, module: nn.Module, keep: Tensor) -> None:
        """Take the set of pruned entries anew: all fade from where they stand, and what leaves goes on from there."""
        orig, mask, pruned = tensors(module, self._tensor_name)
        pruned.copy_(~keep)
        mask.logical_or_(keep.to(mask.device))
        start = self._start_of(module)
        if start is not None:
            torch.mul(orig, pruned, out=start)

    @contextmanager
    def effective(self, module: nn.Module) -> Iterator[Tensor]:
        """See the function `effective`."""
        with _requiring_grad(tensors(module, self._tensor_name)[0]) as orig:
            yield orig

    def remove(self, module: nn.Module) -> None:
        """Called by `prune.remove`: the parameter is a plain one again, with exact zeros."""
        name = self._tensor_name
        orig, mask, pruned = tensors(module, name)
        gone = pruned & (mask == 0)
        with _keeping_place(module, f"{name}_orig", name):
            super().remove(module)
        orig.data.masked_fill_(gone, 0.0)  # the optimizer may have moved them since
        for buffer in ("pruned", "start"):
            del module._buffers[f"{name}_{buffer}"]
        self._unhook()

    def _expose(self, module: nn.Module) -> None:
        """Show `weight_orig` as `weight` without registering it twice, and keep pruned entries out of its gradient."""
        name = self._tensor_name
        orig, _, _ = tensors(module, name)
        if module.__dict__.get(name) is not orig:
            setattr(module, name, orig)  # an LSTM keeps a list of its own, and changes it here
            module.__dict__[name] = module._parameters.pop(name)
        self._unhook()
        if self._mask_gradients and orig.is_leaf and orig.requires_grad:
            self._hook = orig.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(self._mask, module)
            )
        self._exposed = orig

    def _mask(self, module: nn.Module, parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.mul_(self._kept(module))

    def _kept(self, module: nn.Module) -> Tensor:
        """1 where kept and 0 where pruned, in the parameter's dtype: torch multiplies ten times as fast by it."""
        orig, _, pruned = tensors(module, self._tensor_name)
        source, version = self._keep_of or (None, 0)
        if self._keep is None or source is not pruned or version != pruned._version or self._keep.dtype != orig.dtype:
            self._keep, self._keep_of = (~pruned).to(orig.dtype), (pruned, pruned._version)
        return self._keep

    def _start_of(self, module: nn.Module) -> Tensor | None:
        return module._buffers[f"{self._tensor_name}_start"]

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._exposed = None


@contextmanager
def _keeping_place(module: nn.Module, old: str, new: str) -> Iterator[None]:
    """The parameter that becomes `new` stands where `old` stood: what is derived from their order stays the same."""
    order = [new if name == old else name for name in module._parameters]
    yield
    for name in order:
        module._parameters[name] = module._parameters.pop(name)


Place = tuple[nn.Module, SoftPruningMethod]
"""A module, and what prunes a parameter of it."""


def tensors(module: nn.Module, name: str) -> tuple[nn.Parameter, Tensor, Tensor]:
    """(`name_orig`, `name_mask`, `name_pruned`) of a soft-pruned parameter."""
    orig = module._parameters[f"{name}_orig"]  # several times as fast as getattr, and asked for at each step
    mask, pruned = module._buffers[f"{name}_mask"], module._buffers[f"{name}_pruned"]
    assert orig is not None
    assert mask is not None
    assert pruned is not None
    return orig, mask, pruned


@contextmanager
def effective(places: Sequence[tuple[nn.Module, str]]) -> Iterator[list[Tensor]]:
    """The parameters (module, name) as they act now, masked or not, as leaves that a gradient can be taken of.

    Inside, forward passes compute with the leaves that are handed out, so that entries that get no gradient otherwise
    have one too: that of what acts.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_effective(module, name)) for module, name in places]


@contextmanager
def _effective(module: nn.Module, name: str) -> Iterator[Tensor]:
    parameter = module._parameters.get(name)
    with _requiring_grad(parameter) if parameter is not None else method_of(module, name).effective(module) as leaf:
        yield leaf


@contextmanager
def _requiring_grad(parameter: nn.Parameter) -> Iterator[nn.Parameter]:
    before = parameter.requires_grad
    parameter.requires_grad_(True)
    try:
        yield parameter
    finally:
        parameter.requires_grad_(before)


def fold(model: nn.Module) -> nn.Module:
    """Write every mask of torch.nn.utils.prune, ours or torch's, into its weight, in place; plain names again."""
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    return model


def method_of(module: nn.Module, name: str) -> SoftPruningMethod:
    """What prunes the parameter; TargetError if nothing does."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SoftPruningMethod) and hook._tensor_name == name:
            return hook
    raise TargetError(f"{name!r} of {type(module).__name__} is not being soft-pruned")


def _prunable(module: nn.Module, name: str) -> nn.Parameter:
    kind = type(module).__name__
    if f"{name}_orig" in module._parameters:
        raise TargetError(f"{name!r} of {kind} is pruned already: call finalize() or prune.remove() first")
    parameter = module._parameters.get(name)
    if parameter is None:
        known = ", ".join(key for key, value in module._parameters.items() if value is not None)
        raise TargetError(f"{kind} has no parameter {name!r}; it has {known or 'none of its own'}")
    return parameter
