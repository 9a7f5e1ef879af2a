"""How much is pruned: one sparsity, one for each layer, or a budget; and what is ranked together."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

from compress.errors import InputError, TargetError
from compress.options import check
from compress.wording import did_you_mean

Measure = Literal["sparsity", "params", "macs"]
WeightScope = Literal["global", "layer", "erk"]
NodeScope = Literal["layer", "isomorphic", "global"]
Scope = Literal[WeightScope, NodeScope]
"""The entries or nodes that are ranked together and share the amount."""

BUDGETS: Final = ("params", "macs")


@dataclass(frozen=True)
class Amount:
    """The amount that a pruner is asked for.

    measure: what `value` is a share of: "sparsity", of the targets' entries or nodes, to prune; or a budget, of the
        network's "params" or "macs" (multiply-adds), to keep.
    layers: the sparsity of each layer by patterns of names, of which the first that matches counts; `value` is the
        largest.
    """

    measure: Measure
    value: float
    layers: Mapping[str, float] | None = None

    @property
    def share(self) -> float:
        """The share that is pruned, of the entries or nodes, or of what the budget measures."""
        return self.value if self.measure == "sparsity" else 1.0 - self.value

    @classmethod
    def of(
        cls,
        *,
        sparsity: float | None = None,
        params: float | None = None,
        macs: float | None = None,
        layers: Mapping[str, float] | None = None,
    ) -> "Amount":
        """The amount that is given.

        Raises:
            InputError: none or several are given, or one is out of range.
        """
        options = {"sparsity": sparsity, "params": params, "macs": macs, "layers": layers}
        given = [name for name, value in options.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(f"{name}={options[name]!r}" for name in given) or "none"
            raise InputError(f"found {found}; give exactly one of sparsity, params, macs and layers")
        if layers is not None:
            return cls("sparsity", _largest(layers), dict(layers))
        if sparsity is not None:
            check("sparsity", sparsity, float, ge=0, lt=1)
            return cls("sparsity", sparsity)
        measure: Measure = "params" if params is not None else "macs"
        value = params if params is not None else macs
        check(measure, value, float, gt=0, lt=1)
        assert value is not None
        return cls(measure, value)


def _largest(layers: object) -> float:
    if not isinstance(layers, Mapping) or not layers:
        raise InputError(f"layers: found {layers!r}; expected a dict of patterns and sparsities, as {{'conv1': 0.3}}")
    for pattern, share in layers.items():
        check("layers", pattern, str)
        check(f"layers[{pattern!r}]", share, float, ge=0, lt=1)
    largest = max(layers.values())
    if not largest:
        raise InputError("layers: every layer keeps all of it; give one of them a share above 0")
    return float(largest)


def shares_of(
    patterns: Mapping[str, float], layers: Mapping[str, Collection[str]], part: float = 1.0
) -> dict[str, float]:
    """The sparsity of each layer: that of the first pattern that matches one of its names.

    Args:
        layers: all names of each, by its main name.
        part: the share of these sparsities that is reached by now, in [0, 1].

    Raises:
        TargetError: a pattern matches nothing, or no pattern matches a layer.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for names in layers.values() for name in names):
            raise TargetError(
                f"the pattern {pattern!r} of `layers` matches none of the target's layers, {', '.join(layers)}"
                f"{did_you_mean(pattern, layers)}"
            )
    found: dict[str, float] = {}
    for layer, names in layers.items():
        share = next((patterns[p] for p in patterns if any(fnmatchcase(name, p) for name in names)), None)
        if share is None:
            raise TargetError(f"no pattern of `layers` matches {layer}; add it, or '*': 0 at the end for all others")
        found[layer] = part * share
    return found
