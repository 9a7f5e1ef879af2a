"""Soft pruning as a method of torch.nn.utils.prune: a mask that is 1, 0, or on its way between.

Menzies & Siebert, "Soft Pruning and Latent Space Dimensionality Reduction", equation 1:

    W  <-  W * M * x  +  (W + dW) * (1 - M)          M = 1 where W is to go

In a module whose parameter `weight` is being pruned

    weight_orig     Parameter   W; where pruned it stays at its value W0 from before pruning
    weight_mask     buffer      1 where kept, the decayed x**t where pruned
    weight_pruned   buffer      bool, the paper's M; the mask alone cannot tell before its first decay
    weight          attribute   weight_orig * weight_mask, computed before each forward pass
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.errors import TargetError


class SoftPruningMethod(prune.BasePruningMethod):
    """Multiplies a parameter by a mask whose pruned entries are lowered by `set_factor`; they get no gradient.

    Unlike torch's own methods it survives `copy.deepcopy` and `pickle` at any moment: outside of a forward pass the
    attribute `weight` is a plain value without a graph.

    learns: pruned entries get the gradient of the product after all, and go on learning underneath their mask.
    """

    PRUNING_TYPE = "unstructured"
    learns = False
    _caller: nn.Module | None = None
    _leaf: Tensor | None = None  # what the module computes with instead, inside `effective`

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: nn.Module, name: str, keep: Tensor, *, learns: bool = False, caller: nn.Module | None = None
    ) -> "SoftPruningMethod":
        """Put a mask of ones on `module.name` and mark where it will decay.

        Args:
            keep: bool tensor of the parameter's shape, False where the parameter is to go.
            caller: the module whose forward pass reads the parameter, where `module` itself is not called.

        Raises:
            TargetError: there is no such parameter, it is pruned already, or `keep` does not fit it.
        """
        parameter = _prunable(module, name, caller)
        if keep.shape != parameter.shape or keep.dtype != torch.bool:
            raise TargetError(
                f"the mask for {name!r} of {type(module).__name__} is {keep.dtype} {tuple(keep.shape)}; "
                f"it must be bool {tuple(parameter.shape)}"
            )
        module.register_buffer(f"{name}_pruned", (~keep).to(parameter.device))
        method: SoftPruningMethod = super().apply(module, name)  # type: ignore[no-untyped-call]
        method.learns = learns
        if caller is None:
            module.register_forward_hook(method.drop_graph)
        else:
            method._called_by(caller, module)
        method.refresh(module)
        return method

    def apply_mask(self, module: nn.Module) -> Tensor:
        """`weight_orig * weight_mask`, with a gradient for the kept entries only, unless pruned ones learn."""
        if self._leaf is not None:
            return self._leaf
        orig, mask, pruned = tensors(module, self._tensor_name)
        if self.learns:
            return orig * mask
        return torch.where(pruned, orig.detach() * mask, orig)

    @torch.no_grad()
    def refresh(self, module: nn.Module) -> None:
        """Bring the attribute up to date without a graph."""
        setattr(module, self._tensor_name, self.apply_mask(module))

    def drop_graph(self, module: nn.Module, args: object, output: object) -> None:
        """Forward hook: a tensor with a graph could be neither copied nor pickled with its module."""
        setattr(module, self._tensor_name, getattr(module, self._tensor_name).detach())

    def _called_by(self, caller: nn.Module, module: nn.Module) -> None:
        """Compute the product before each forward pass of `caller`, and drop its graph behind it."""
        self._caller = caller
        caller.register_forward_pre_hook(_OnBehalf(self, module))
        caller.register_forward_hook(_OnBehalf(self, module))

    def remove(self, module: nn.Module) -> None:
        """Called by `prune.remove`: the product becomes the plain parameter again, with exact zeros."""
        name = self._tensor_name
        orig, mask, pruned = tensors(module, name)
        gone = pruned & (mask == 0)
        super().remove(module)
        # -3.0 * 0.0 is -0.0: equal to zero, but not for whoever looks at the bits.
        orig.data.masked_fill_(gone, 0.0)
        del module._buffers[f"{name}_pruned"]
        for owner in (module, self._caller or module):
            for hooks in (owner._forward_pre_hooks, owner._forward_hooks):
                for key, hook in list(hooks.items()):
                    if self in (getattr(hook, "__self__", None), getattr(hook, "method", None)):
                        del hooks[key]


class _OnBehalf:
    """A hook of the module that reads another one's parameter: does what the other's own would have done."""

    def __init__(self, method: SoftPruningMethod, module: nn.Module) -> None:
        self.method, self.module = method, module

    def __call__(self, caller: nn.Module, args: object, *output: object) -> None:
        if output:
            self.method.drop_graph(self.module, args, *output)
        else:
            self.method(self.module, args)


def caller_of(model: nn.Module, module: nn.Module) -> nn.Module | None:
    """What reads the parameters of `module` without calling it: MultiheadAttention does so with its out_proj."""
    for other in model.modules():
        if isinstance(other, nn.MultiheadAttention) and other.out_proj is module:
            return other
    return None


def tensors(module: nn.Module, name: str) -> tuple[nn.Parameter, Tensor, Tensor]:
    """(`name_orig`, `name_mask`, `name_pruned`) of a soft-pruned parameter."""
    return getattr(module, f"{name}_orig"), getattr(module, f"{name}_mask"), getattr(module, f"{name}_pruned")


@contextmanager
def effective(places: Sequence[tuple[nn.Module, str]]) -> Iterator[list[Tensor]]:
    """The parameters (module, name) as they act now, masked or not, as leaves that a gradient can be taken of.

    Inside, forward passes compute with the leaves that are handed out, so that entries whose mask lets no gradient
    through have one too: that of their product.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_effective(module, name)) for module, name in places]


@contextmanager
def _effective(module: nn.Module, name: str) -> Iterator[Tensor]:
    parameter = module._parameters.get(name)
    if parameter is not None:
        before = parameter.requires_grad
        parameter.requires_grad_(True)
        try:
            yield parameter
        finally:
            parameter.requires_grad_(before)
        return
    method = _method(module, name)
    method.refresh(module)
    method._leaf = getattr(module, name).clone().requires_grad_(True)
    try:
        yield method._leaf
    finally:
        method._leaf = None
        method.refresh(module)


@torch.no_grad()
def set_factor(module: nn.Module, name: str, factor: float) -> None:
    """Overwrite the mask of the pruned entries (torch's own container would multiply masks into each other)."""
    method = _method(module, name)
    _, mask, pruned = tensors(module, name)
    mask.masked_fill_(pruned, factor)
    method.refresh(module)


@torch.no_grad()
def set_pruned(module: nn.Module, name: str, keep: Tensor) -> None:
    """Take the set of pruned entries anew. What leaves it goes on from the value that its mask had left it."""
    method = _method(module, name)
    orig, mask, pruned = tensors(module, name)
    leaves = pruned & keep.to(pruned.device)
    orig.copy_(torch.where(leaves, orig * mask, orig))
    mask.masked_fill_(leaves, 1.0)
    pruned.copy_(~keep)
    method.refresh(module)


@torch.no_grad()
def refresh(module: nn.Module, name: str) -> None:
    """Bring the attribute `name` up to date with its mask."""
    _method(module, name).refresh(module)


def fold(model: nn.Module) -> nn.Module:
    """Write every mask of torch.nn.utils.prune, ours or torch's, into its weight, in place; plain names again."""
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    return model


def _method(module: nn.Module, name: str) -> SoftPruningMethod:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SoftPruningMethod) and hook._tensor_name == name:
            return hook
    raise TargetError(f"{name!r} of {type(module).__name__} is not being soft-pruned")


def _prunable(module: nn.Module, name: str, caller: nn.Module | None) -> nn.Parameter:
    kind = type(module).__name__
    if f"{name}_orig" in module._parameters:
        raise TargetError(f"{name!r} of {kind} is pruned already: call finalize() or prune.remove() first")
    parameter = module._parameters.get(name)
    if parameter is None:
        known = ", ".join(key for key, value in module._parameters.items() if value is not None)
        raise TargetError(f"{kind} has no parameter {name!r}; it has {known or 'none of its own'}")
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear) and caller is None:
        raise TargetError(
            "MultiheadAttention reads the weight of its out_proj without calling it, so a mask there would be "
            "silently ignored: say caller=... (a Pruner of the whole model does)"
        )
    return parameter
