"""The optimizers of torch, without the import of its compiler, which takes a second or two.

torch turns its compiler off around the methods of an optimizer, and imports it for that. These classes have the same
methods without it, which is all the same where no step of an optimizer is compiled, as in our own training loops.
"""

import inspect
from typing import TypeVar

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=type[Optimizer])

_METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def _uncompiled(kind: Kind) -> Kind:
    """The class, whose methods are those inside of torch's decorators."""
    for name in _METHODS:
        setattr(kind, name, inspect.unwrap(getattr(kind, name)))
    kind.step = torch.no_grad()(inspect.unwrap(kind.step))  # type: ignore[method-assign]
    return kind


@_uncompiled
class SGD(torch.optim.SGD): ...


@_uncompiled
class Adam(torch.optim.Adam): ...


@_uncompiled
class AdamW(torch.optim.AdamW): ...


@_uncompiled
class Muon(torch.optim.Muon): ...
