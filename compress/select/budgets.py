"""The choice of nodes: by sparsity or to a budget, compared within a coupling, among alike ones or globally."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from compress.errors import InputError, TargetError
from compress.graph.coupling import Coupling, Couplings
from compress.options import check, require_word
from compress.select.amount import Measure, NodeScope
from compress.select.choose import require_min_keep

Keep = dict[Coupling, Tensor]

_STEPS = 30  # halvings of the interval in which the sparsity for a budget is sought


def choose_nodes(
    known: Couplings,
    scores: Mapping[Coupling, Tensor],
    measure: Measure,
    value: float,
    *,
    scope: NodeScope = "layer",
    multiple_of: int = 1,
    min_keep: int | float | None = None,
    earlier: Mapping[Coupling, Tensor] | None = None,
) -> Keep:
    """Which nodes are kept, of every coupling in `scores`: bool [size], True = keep.

    Args:
        scores: [size] of each coupling that may shrink, larger = keep.
        measure: what `value` measures: "sparsity", the fraction of the nodes that is pruned, in [0, 1); or "params" or
            "macs", the fraction of the network's parameters or multiply-adds that may be left, in (0, 1).
        scope: nodes compete within their coupling ("layer"), with those of couplings whose members are alike (whose
            scores are of one kind: "isomorphic"), or with all others ("global").
        multiple_of: widths are rounded up to a multiple of it, as far as there are nodes.
        min_keep: every coupling keeps at least this number of nodes, or this share of them if it is below 1; 1 if None.
        earlier: bool [size] of any couplings, what earlier choices kept: the rest is pruned first, and counts in a
            budget.

    Raises:
        InputError: an option is out of range, or the budget cannot be reached.
        TargetError: a score is NaN.
    """
    require_word("scope", scope, get_args(NodeScope))
    check("multiple_of", multiple_of, int, ge=1)
    require_min_keep(min_keep)
    for coupling, score in scores.items():
        if score.isnan().any():
            raise TargetError(f"the scores of the nodes of {coupling.name} hold NaN: nothing can be ranked by them")
    before: Mapping[Coupling, Tensor] = earlier or {}
    scores = {coupling: pruned_first(score, before.get(coupling)) for coupling, score in scores.items()}
    pools = _pools(scores, scope)

    def at(share: float) -> Keep:
        keep = _at(share, scores, pools, multiple_of, min_keep or 1)
        return {coupling: nodes & before.get(coupling, nodes) for coupling, nodes in keep.items()}

    if measure == "sparsity":
        return at(value)
    weights = weights_of(measure, known)
    budget = value * cost(known, {}, weights)
    low, high = 0.0, 1.0
    least = cost(known, {**before, **at(high)}, weights)
    if least > budget:
        raise InputError(
            f"{measure}={value:g} cannot be reached: with the fewest nodes that multiple_of={multiple_of} and "
            f"min_keep={min_keep or 1} allow, {least / budget * value:.0%} of the {measure} are left"
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = cost(known, {**before, **at(middle)}, weights) <= budget
        low, high = (low, middle) if fits else (middle, high)
    return at(high)


def pruned_first(scores: Tensor, keep: Tensor | None) -> Tensor:
    """The scores of a coupling's nodes; those pruned earlier rank below all others, since they count already."""
    scores = scores.float().cpu()
    return scores if keep is None else scores.masked_fill(~keep, -torch.inf)


def masks_of(model: nn.Module, keep: Keep) -> dict[str, Tensor]:
    """Bool masks of all parameters that hold the nodes of `keep`, by name, True = keep: norms' scale and shift too."""
    found: dict[str, Tensor] = {}
    for coupling, nodes in keep.items():
        for name, mask in coupling.masks(model, nodes).items():
            found[name] = found[name] & mask if name in found else mask
    return found


def cost(known: Couplings, keep: Mapping[Coupling, Tensor], weights: Mapping[str, int]) -> int:
    """Entries of the network's parameters, each as often as `weights` says, when only the nodes of `keep` are left."""
    shapes = {name: list(known.shapes[name]) for name in weights}
    masks: dict[tuple[str, int], Tensor] = {}
    for coupling, nodes in keep.items():
        pruned = (~nodes).nonzero().flatten()
        for member in coupling.members:
            if member.tensor in shapes:
                length = shapes[member.tensor][member.dim]
                mask = masks.setdefault((member.tensor, member.dim), torch.ones(length, dtype=torch.bool))
                mask[member.index(pruned)] = False
    for (name, dim), mask in masks.items():
        shapes[name][dim] = int(mask.sum())
    return sum(weights[name] * torch.Size(shape).numel() for name, shape in shapes.items())


def weights_of(measure: Literal["params", "macs"], known: Couplings) -> dict[str, int]:
    """The cost of an entry of each parameter: one parameter, or its multiply-adds for a sample."""
    return {name: known.positions.get(name, 0) if measure == "macs" else 1 for name in known.shapes}


def _pools(scores: Mapping[Coupling, Tensor], scope: NodeScope) -> list[list[Coupling]]:
    """Couplings whose nodes compete. Alike are those whose members are of the same roles, in the same dimensions."""
    if scope == "layer":
        return [[coupling] for coupling in scores]
    if scope == "global":
        return [list(scores)]
    pools: dict[object, list[Coupling]] = defaultdict(list)
    for coupling in scores:
        kind = (coupling.summed, frozenset((member.role, member.dim) for member in coupling.members))
        pools[kind].append(coupling)
    return list(pools.values())


def _at(
    sparsity: float,
    scores: Mapping[Coupling, Tensor],
    pools: list[list[Coupling]],
    multiple_of: int,
    min_keep: int | float,
) -> Keep:
    """Prune the lowest round(sparsity * n) of each pool; where rounding keeps more, it keeps the best of those."""
    keep: Keep = {}
    for pool in pools:
        together = torch.cat([scores[coupling] for coupling in pool])
        kept = torch.ones(len(together), dtype=torch.bool)
        kept[together.argsort(stable=True)[: round(sparsity * len(together))]] = False
        for coupling, mine in zip(pool, torch.split(kept, [coupling.size for coupling in pool]), strict=True):
            floor = min_keep if min_keep >= 1 else max(1, round(min_keep * coupling.size))
            count = max(int(mine.sum()), int(floor))
            count = min(-(-count // multiple_of) * multiple_of, coupling.size)
            best = scores[coupling].argsort(descending=True, stable=True)[:count]
            keep[coupling] = torch.zeros(coupling.size, dtype=torch.bool).index_fill_(0, best, True)
    return keep
