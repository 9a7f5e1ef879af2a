"""What networks return, compared: every tensor of any nesting."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in an output, however nested, each with its place."""
    here = f"{path}/{type(value).__name__}"
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{here}.{key}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from leaves(part, f"{here}[{place}]")
    elif hasattr(value, "__dict__"):
        for key, part in vars(value).items():
            yield from leaves(part, f"{here}.{key}")


def difference(wanted: Any, got: Any) -> float:
    """The largest difference between tensors, relative to their scale; infinite if the structures differ."""
    one, other = dict(leaves(wanted)), dict(leaves(got))
    if list(one) != list(other) or any(one[path].shape != other[path].shape for path in one):
        return float("inf")
    return max((_difference(one[path], other[path]) for path in one), default=float("inf"))


def _difference(wanted: Tensor, got: Tensor) -> float:
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(wanted, got) else float("inf")
    finite = wanted.isfinite()
    if not torch.equal(finite, got.isfinite()):
        return float("inf")
    wanted, got = wanted[finite].double(), got[finite].double()
    if not wanted.numel():
        return 0.0
    scale = float(wanted.abs().max())
    return float((wanted - got).abs().max()) / (scale or 1.0)
