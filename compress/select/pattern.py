"""N:M patterns: of every m consecutive weights along the input dimension, at most n are kept.

Mishra et al., "Accelerating sparse deep neural networks", 2021 (2:4 on GPUs). Consecutive are the inputs of a node: a
row of a Linear weight; of a convolution the input channels at one place of the kernel, as GPUs want it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.errors import InputError
from compress.options import check_options, option

if TYPE_CHECKING:
    from torch import Tensor


def _more_than_kept(m: int, before: Mapping[str, Any]) -> str | None:
    return None if m > before.get("n", 0) else f"found n {before['n']} of m {m}; keep fewer than there are"


@dataclass(frozen=True)
class Pattern:
    """At most n of every m consecutive weights along the input dimension are kept; the sparsity is 1 - n/m."""

    n: int = option("how many of every m consecutive weights are kept", ge=1)
    m: int = option("the size of a group", ge=2, rule=_more_than_kept)

    def __post_init__(self) -> None:
        check_options(self)

    @classmethod
    def of(cls, scope: object) -> Pattern | None:
        """The pattern in a `scope`, such as {"n": 2, "m": 4}; None where it is something else.

        Raises:
            InputError: a mapping that is not a pattern.
        """
        if not isinstance(scope, Mapping):
            return scope if isinstance(scope, cls) else None
        if scope.keys() != {"n", "m"}:
            raise InputError(f"scope: found the keys {', '.join(map(str, scope)) or 'of nothing'}; expected n and m")
        return cls(**scope)

    @property
    def share(self) -> float:
        """The sparsity of whole groups."""
        return 1.0 - self.n / self.m

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def pruned(self, scores: Tensor, dim: int) -> Tensor:
        """Mark the m - n lowest of each group; among equals, the first ones.

        Args:
            scores: larger = keep. dim: the input dimension.

        Returns:
            Bool, of the scores' shape. Of an incomplete last group all but the n best are marked.
        """
        import torch

        rows = scores.movedim(dim, -1)
        size = rows.shape[-1]
        padding = -size % self.m  # it counts as pruned
        padded = torch.nn.functional.pad(rows, (0, padding), value=-torch.inf)
        groups = padded.reshape(*rows.shape[:-1], -1, self.m)
        order = groups.argsort(dim=-1, stable=True)
        marked = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., : self.m - self.n], True)
        return marked.flatten(-2)[..., :size].movedim(-1, dim)

    def count(self, shape: tuple[int, ...], dim: int) -> int:
        """How many entries of a tensor `pruned` marks."""
        size = shape[dim]
        whole, rest = divmod(size, self.m)
        each = whole * (self.m - self.n) + max(0, rest - self.n)
        return math.prod(shape) // max(1, size) * each
