"""Soft pruning as a method of torch.nn.utils.prune: the mask of a set of entries decays to zero.

Menzies & Siebert, "Soft Pruning and Latent Space Dimensionality Reduction", equation 1:

    W  <-  W * M * x  +  (W + dW) * (1 - M)          M = 1 where W is pruned

In a module whose parameter `weight` is being pruned

    weight_mask     buffer      1 where an entry is kept, x**t where it decays, exactly 0 where it is removed
    weight_start    buffer      the value that an entry of the set had when it joined; 0 where none decays
    weight_pruned   buffer      bool, the set: the paper's M
    weight_orig     Parameter   the optimizer's parameter, as before
    weight          attribute   `weight_orig` itself, so that a forward pass costs no more than without pruning

An entry of the set acts as weight_start * weight_mask; `place` writes that over whatever the optimizer made of it.

All of it is done entry by entry: of a parameter that is sharded over processes, each process masks its part (see
`compress.remove.sharded`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.hooks import RemovableHandle

from compress.errors import InputError, TargetError
from compress.graph.network import require_network
from compress.graph.parametrized import parametrized
from compress.options import check, shown
from compress.select.gradients import requiring_grad
from compress.shards import is_sharded, local, mapped, spread
from compress.wording import did_you_mean

PIECE = 1 << 20
"""Entries of a tensor that are changed at a time, where that takes more memory than the tensor itself has."""


class SoftPruningMethod(prune.BasePruningMethod):
    """A set of entries under a decaying mask: they get no gradient, and `place` sets them to start * mask."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, mask_gradients: bool = True) -> None:
        self._mask_gradients = mask_gradients
        self._exposed: nn.Parameter | None = None
        self._hook: RemovableHandle | None = None
        self._scored = False  # whether gradients are wanted of the set too
        self._level: tuple[Tensor, int, float | None] | None = None
        """A mask below 1 in the whole set, its version, and its value there, if it is one value."""

    def __getstate__(self) -> dict[str, Any]:
        """A copy of a module has its own Parameter, without our hook; its first forward pass adds it."""
        return {"_tensor_name": self._tensor_name, "_mask_gradients": self._mask_gradients}

    def __setstate__(self, state: dict[str, Any]) -> None:
        SoftPruningMethod.__init__(self)
        self.__dict__.update(state)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: nn.Module, name: str, keep: Tensor, *, fades: bool = True, mask_gradients: bool = True
    ) -> "SoftPruningMethod":
        """Put entries of `module.name` into the set, under a mask of 1: `place` and `fade_by` lower it.

        Args:
            keep: bool tensor of the parameter's shape, False where the parameter is pruned.
            fades: whether entries decay; if they are only ever set to zero, no start is kept.
            mask_gradients: whether entries of the set get a gradient of zero; in either case, `place` overwrites the
                optimizer's update.

        Raises:
            TargetError: the parameter does not exist, it is pruned already, or `keep` does not fit it.
        """
        require_network(module, "module", sharded=True)
        check("name", name, str)
        check("fades", fades, bool)
        check("mask_gradients", mask_gradients, bool)
        parameter = _prunable(module, name)
        if not isinstance(keep, Tensor):
            raise InputError(f"keep: found {shown(keep)}; expected a bool tensor, True = keep")
        if keep.shape != parameter.shape or keep.dtype != torch.bool:
            raise TargetError(
                f"the mask for {name!r} of {type(module).__name__} is {keep.dtype} {tuple(keep.shape)}; "
                f"it must be bool {tuple(parameter.shape)}"
            )
        pruned = mapped(torch.logical_not, spread(keep, parameter)).to(parameter.device)
        start = mapped(torch.mul, parameter.detach(), pruned) if fades else None
        module.register_buffer(f"{name}_pruned", pruned)
        module.register_buffer(f"{name}_start", start)
        return cls._put_on(module, name, mask_gradients)

    @classmethod
    def _put_on(cls, module: nn.Module, name: str, mask_gradients: bool) -> "SoftPruningMethod":
        """Add the mask, and name the parameter `name_orig`."""
        with _keeping_place(module, name, f"{name}_orig"):
            method: SoftPruningMethod = super().apply(module, name, mask_gradients)  # type: ignore[no-untyped-call]
            method._expose(module)
        return method

    def apply_mask(self, module: nn.Module) -> Tensor:
        """The parameter itself, which `place` keeps up to date."""
        return tensors(module, self._tensor_name)[0]

    def __call__(self, module: nn.Module, inputs: object) -> None:
        """Before a forward pass: only check whether the module is a copy, or has other tensors now."""
        if self._exposed is not module._parameters[f"{self._tensor_name}_orig"] and not torch.compiler.is_compiling():
            self._expose(module)

    @classmethod
    @torch.no_grad()
    def place(cls, places: "Sequence[Masked]", factor: float | None = None) -> None:
        """Set the entries of the sets to start * mask, overwriting the optimizer's update.

        Args:
            factor: the new mask of all entries in the sets; None does not change the masks.
        """
        for module, method in places:
            orig, mask, pruned = tensors(module, method._tensor_name)
            method._follow(module)
            if factor is not None:
                method._lower_to(mask, pruned, factor)
            method._zero_set(orig, mask, pruned)
            start = method._start_of(module)
            if start is None or factor == 0:
                continue
            if factor is None or mask.itemsize < 4:
                orig.addcmul_(start, mask)
            else:  # the same to the last bit (a half would not round the factor), and reads one tensor less
                orig.add_(start, alpha=factor)

    @torch.no_grad()
    def fade_to(self, module: nn.Module, factor: float) -> None:
        """Set the mask of all entries in the set to `factor`, except where they are removed."""
        _, mask, pruned = tensors(module, self._tensor_name)
        mask.masked_fill_(pruned & (mask != 0), factor)

    @torch.no_grad()
    def fade_by(self, module: nn.Module, factor: float) -> None:
        """Multiply the mask of every entry in the set by `factor`."""
        _, mask, _ = tensors(module, self._tensor_name)
        mask.mul_(self.lowered(module, factor))
        if factor <= largest_below_one(mask.dtype):
            self._level = (mask, mask._version, None)

    @torch.no_grad()
    def vanish(self, module: nn.Module, which: Tensor | None = None) -> None:
        """Set entries of the set (only those that `which` marks) to exactly 0, until they leave it."""
        orig, mask, pruned = tensors(module, self._tensor_name)
        start = self._start_of(module)
        every = (orig, mask) if start is None else (orig, mask, start)
        for marked, in_set, *values in in_pieces(pruned if which is None else local(which), pruned, *every):
            left = _as_numbers(~(marked & in_set), values[0])
            # Not multiplied: -3.0 * 0.0 is -0.0, equal to zero, with other bits.
            for part in values:
                zero_where_below_one(part, left)
        self._level = (mask, mask._version, 0.0) if which is None else None

    @torch.no_grad()
    def take(self, module: nn.Module, keep: Tensor) -> None:
        """Replace the set. Entries that join it decay from their current value; those that leave it keep learning."""
        orig, mask, pruned = tensors(module, self._tensor_name)
        keep = local(keep).to(pruned.device)
        start = self._start_of(module)
        every = (pruned, keep, mask, orig)
        for was, kept, of_mask, acts, *starts in in_pieces(*every if start is None else (*every, start)):
            for part in starts:
                zero_where_below_one(part, _as_numbers(~(was & kept), of_mask))
                part.addcmul_(acts, _as_numbers(~(was | kept), of_mask))
            torch.maximum(of_mask, _as_numbers(~was | kept, of_mask), out=of_mask)
            torch.logical_not(kept, out=was)

    @contextmanager
    def effective(self, module: nn.Module) -> Iterator[Tensor]:
        """See `compress.select.gradients.effective`."""
        self._scored = True
        try:
            with requiring_grad(parameter_of(module, self._tensor_name)) as orig:
                yield orig
        finally:
            self._scored = False

    def remove(self, module: nn.Module) -> None:
        """Called by `prune.remove`: make the parameter a plain one again, with its current values."""
        name = self._tensor_name
        self.place([(module, self)])
        self._take_off(module)
        for buffer in ("pruned", "start"):
            del module._buffers[f"{name}_{buffer}"]
        self._unhook()

    def _take_off(self, module: nn.Module) -> None:
        """The reverse of `_put_on`."""
        name = self._tensor_name
        with _keeping_place(module, f"{name}_orig", name):
            super().remove(module)

    def lowered(self, module: nn.Module, factor: float) -> Tensor:
        """1 where the parameter is kept, `factor` in the set."""
        _, mask, pruned = tensors(module, self._tensor_name)
        told = mask if self._tells(mask) else _as_numbers(~pruned, mask)
        return torch.threshold(told, largest_below_one(mask.dtype), factor)

    def _expose(self, module: nn.Module) -> None:
        """Show `weight_orig` as `weight` without registering it twice, and keep pruned entries out of its gradient."""
        name = self._tensor_name
        orig = parameter_of(module, name)
        if module.__dict__.get(name) is not orig:
            setattr(module, name, orig)  # an LSTM keeps its own list, and changes it here
            module.__dict__[name] = module._parameters.pop(name)
        self._unhook()
        if self._mask_gradients and orig.is_leaf and orig.requires_grad:
            self._hook = orig.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(self._mask, module)
            )
        self._exposed = orig

    def _mask(self, module: nn.Module, parameter: Tensor) -> None:
        grad = parameter.grad
        if grad is None or self._scored:
            return
        if grad.requires_grad or grad.layout != torch.strided:  # a second derivative is wanted; a sparse gradient
            grad.mul_(self.lowered(module, 0.0))
        else:
            _, mask, pruned = tensors(module, self._tensor_name)
            self._zero_set(grad, mask, pruned)

    def _follow(self, module: nn.Module) -> None:
        """Before the sets are placed: see `compress.remove.sharded`; a plain parameter is followed as it is called."""

    def _lower_to(self, mask: Tensor, pruned: Tensor, factor: float) -> None:
        """The mask of the whole set becomes `factor`."""
        tells, below = self._tells(mask), largest_below_one(mask.dtype)
        if tells and self._level is not None and self._level[2] == factor:
            return
        if tells:
            torch.threshold(mask, below, factor, out=mask)
        else:
            for of_mask, in_set in in_pieces(mask, pruned):
                torch.threshold(_as_numbers(~in_set, of_mask), below, factor, out=of_mask)
        self._level = (mask, mask._version, factor) if factor <= below else None

    def _zero_set(self, values: Tensor, mask: Tensor, pruned: Tensor) -> None:
        """Set the entries of the set to 0 in a tensor of the parameter's shape."""
        if self._tells(mask):
            zero_where_below_one(values, mask)
        else:
            for part, of_mask, in_set in in_pieces(values, mask, pruned):
                zero_where_below_one(part, _as_numbers(~in_set, of_mask))

    def _tells(self, mask: Tensor) -> bool:
        """Whether the mask is below 1 in the whole set: not at a factor of 1, or where somebody changed it."""
        return self._level is not None and self._level[0] is mask and self._level[1] == mask._version

    def _start_of(self, module: nn.Module) -> Tensor | None:
        start = module._buffers[f"{self._tensor_name}_start"]
        return None if start is None else local(start)

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._exposed = None


def zero_where_below_one(values: Tensor, marks: Tensor) -> None:
    """Set `values` to 0, in place, where `marks` is below 1: the derivative of a threshold.

    As fast as a product, which would leave -0.0 and NaN; on a CPU, `where` and `masked_fill_` take ten times as long.
    """
    _THRESHOLD_BACKWARD(values, marks, largest_below_one(marks.dtype), grad_input=values)


_THRESHOLD_BACKWARD = torch.ops.aten.threshold_backward.grad_input


@cache
def largest_below_one(dtype: torch.dtype) -> float:
    return 1.0 - torch.finfo(dtype).eps / 2


def in_pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape in parts along the first dimension, so that what is made of a part is small.

    A part has at most `PIECE` entries, or one index of the first dimension.
    """
    whole = tensors[0]
    if whole.numel() <= PIECE:
        yield tensors
    else:
        rows = max(1, PIECE * len(whole) // whole.numel())
        yield from zip(*(tensor.split(rows) for tensor in tensors), strict=True)  # type: ignore[no-untyped-call]


def _as_numbers(condition: Tensor, like: Tensor) -> Tensor:
    """A bool tensor as 1 and 0 of the dtype of `like`; as bytes it is converted eight times as fast."""
    return torch.empty_like(like).copy_(condition.view(torch.uint8))


@contextmanager
def _keeping_place(module: nn.Module, old: str, new: str) -> Iterator[None]:
    """Keep the order of the parameters when `old` becomes `new`, since other things depend on it."""
    order = [new if name == old else name for name in module._parameters]
    yield
    for name in order:
        module._parameters[name] = module._parameters.pop(name)


Masked = tuple[nn.Module, SoftPruningMethod]
"""A module, and the method that prunes a parameter of it."""


def tensors(module: nn.Module, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """(`name_orig`, `name_mask`, `name_pruned`) of a soft-pruned parameter; of a sharded one, this process's parts."""
    orig = parameter_of(module, name)
    mask, pruned = module._buffers[f"{name}_mask"], module._buffers[f"{name}_pruned"]
    assert mask is not None
    assert pruned is not None
    return (local(orig), local(mask), local(pruned)) if is_sharded(mask) else (orig, mask, pruned)


def parameter_of(module: nn.Module, name: str) -> nn.Parameter:
    """The optimizer's parameter under a mask: `name_orig`, or `name` where it is sharded."""
    orig = module._parameters.get(f"{name}_orig")  # several times as fast as getattr, and asked for at each step
    orig = module._parameters[name] if orig is None else orig
    assert orig is not None
    return orig


def fold(model: nn.Module) -> nn.Module:
    """Write every mask of torch.nn.utils.prune, ours or torch's, into its weight, in place; plain names again."""
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    return model


def _prunable(module: nn.Module, name: str) -> nn.Parameter:
    kind = type(module).__name__
    for tensor in parametrized(module):
        if name == tensor.path or name in tensor.behind:
            raise TargetError(tensor.refusal(tensor.path))
    if f"{name}_mask" in module._buffers:
        raise TargetError(f"{name!r} of {kind} is pruned already: call finalize() or prune.remove() first")
    parameter = module._parameters.get(name)
    if parameter is None:
        known = ", ".join(key for key, value in module._parameters.items() if value is not None)
        near = did_you_mean(name, known.split(", "))
        raise TargetError(f"name: {kind} has no parameter {name!r}; it has {known or 'none of its own'}{near}")
    return parameter
