"""Tensors that a layer computes from other parameters: weight_norm, spectral_norm, orthogonal, custom parametrizations.

The layer uses `layer.weight`, but other parameters train, such as a direction and a magnitude. A zero in these may not
be a zero in the weight, and changes weights that are kept: weight_norm divides each row by its norm, which gives NaN if
the whole direction is zero. So nothing behind a parametrization is pruned.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from compress.evaluation_mode import evaluation_mode

_REMOVERS = {WeightNorm: ("remove_weight_norm", ("_g", "_v")), SpectralNorm: ("remove_spectral_norm", ("_orig",))}
"""The older functions, which work by hooks: what undoes each, and the suffixes of its parameters' names."""

_CALLED = {"_WeightNorm": "weight_norm", "_SpectralNorm": "spectral_norm", "_Orthogonal": "orthogonal"}


@dataclass(frozen=True)
class Parametrized:
    """A tensor that a layer computes before using it.

    path: its qualified name, "net.0.weight".
    behind: the qualified names of the parameters that it is computed from.
    by: what computes it, such as "weight_norm".
    fold: how to make it a plain parameter again, of the same values.
    """

    path: str
    module: nn.Module = field(compare=False, repr=False)
    name: str
    behind: tuple[str, ...]
    by: str
    fold: str

    @property
    def dim(self) -> int:
        """The number of its dimensions; it is computed if the parameters behind it have fewer."""
        with evaluation_mode(self.module):  # spectral_norm takes a step at each look during training
            return int(getattr(self.module, self.name).dim())

    def holds(self, name: str) -> bool:
        """Whether a parameter or buffer, by its qualified name, is used to compute the tensor."""
        return name in self.behind or name.startswith(f"{self._layer}parametrizations.{self.name}.")

    @property
    def _layer(self) -> str:
        return self.path.removesuffix(self.name)

    def refusal(self, exclude: str) -> str:
        """The error message. exclude: what to exclude so that the tensor is not pruned."""
        return (
            f"{self.path} is parametrized by {self.by}: it is computed from {' and '.join(self.behind)}, which are not "
            f"the weights that act; make it a plain parameter first with {self.fold}, or exclude {exclude!r}"
        )


def parametrized(model: nn.Module) -> Iterator[Parametrized]:
    """All such tensors of a network, except masks of torch.nn.utils.prune."""
    for path, module in model.named_modules():
        start, layer = (f"{path}.", f"model.get_submodule({path!r})") if path else ("", "model")
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for name, steps in module.parametrizations.items():
                behind = tuple(f"{start}parametrizations.{name}.{own}" for own, _ in steps.named_parameters())
                by = " and ".join(_CALLED.get(type(step).__name__, type(step).__name__) for step in steps.children())
                fold = f"torch.nn.utils.parametrize.remove_parametrizations({layer}, {name!r})"
                if behind:
                    yield Parametrized(start + name, module, name, behind, by, fold)
        for name, by, own, fold in _by_hooks(module, layer):
            yield Parametrized(start + name, module, name, tuple(start + each for each in own), by, fold)


def _by_hooks(module: nn.Module, layer: str) -> Iterator[tuple[str, str, list[str], str]]:
    """Tensors that a hook computes before each forward pass: (name, by what, the parameters behind it, way back)."""
    hooks = list(module._forward_pre_hooks.values())
    masked = {hook._tensor_name for hook in hooks if isinstance(hook, prune.BasePruningMethod)}
    named = {name: hook for hook in hooks if isinstance(name := getattr(hook, "name", None), str)}
    for name, value in vars(module).items():
        if not isinstance(value, Tensor) or name in masked or name not in {*named, "weight", "bias"}:
            continue
        hook = named.get(name)
        remover, ends = _REMOVERS.get(type(hook), (None, ()))
        own = [own for own in module._parameters if own.startswith(f"{name}_")]
        own = [each for each in own if each.removeprefix(name) in ends] if ends else own
        if own and remover:
            word = remover.removeprefix("remove_")
            yield name, word, own, f"torch.nn.utils.{remover}({layer}, {name!r})"
        elif own:
            yield name, type(hook or module).__name__, own, "what undoes that"
