"""The choice of nodes: by sparsity or to a budget, compared within a coupling, among alike ones or globally."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from compress.errors import InputError, TargetError
from compress.graph.coupling import Coupling, Couplings
from compress.options import check, require_word
from compress.select.amount import Measure, NodeScope
from compress.select.floors import floor_of, require_min_keep, usual_floor

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
    gone: Collection[str] = (),
) -> Keep:
    """Which nodes are kept, of every coupling in `scores`: bool [size], True = keep.

    Args:
        scores: [size] of each coupling that may shrink, larger = keep.
        measure: what `value` measures: "sparsity", the fraction of the nodes that is pruned, in [0, 1); or "params" or
            "macs", the fraction of the network's parameters or multiply-adds that may be left, in (0, 1).
        scope: nodes compete within their coupling ("layer"), with those of couplings whose members are alike (whose
            scores are of one kind: "isomorphic"), or with all others ("global").
        multiple_of: widths are rounded up to a multiple of it, as far as there are nodes.
        min_keep: every coupling keeps at least this number of nodes, or this share of them if it is below 1. None:
            `usual_floor` where several couplings compete or share a budget, and 1 node where each has the sparsity by
            itself. 0: 1 node in any case.
        earlier: bool [size] of any couplings, what earlier choices kept: the rest is pruned first, and counts in a
            budget.
        gone: parameters that earlier choices removed with whole branches, which count in a budget, too.

    Raises:
        InputError: an option is out of range, or the amount cannot be reached.
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
    widths = _Widths(scores, before, multiple_of)
    budget = None if measure == "sparsity" else _Budget(known, before, weights_of(measure, known), gone)
    least = _least(widths, budget, value, scope) if min_keep is None else min_keep
    floors = widths.floors(least)
    if budget is None:
        if scope != "layer":
            _require_room(value, _pools(scores, scope), floors, least)
        return widths.at(value, scope, floors)
    fewest = budget.needs(widths.at(1.0, scope, floors))
    if fewest > value:
        raise InputError(
            f"{measure}={value:g} cannot be reached: with the fewest nodes that multiple_of={multiple_of} and "
            f"min_keep={_shown(least)} allow, {_percent(fewest)} of the {measure} are left; ask for more than "
            f"that{_without_floor(least)}"
        )
    return widths.at(_share(widths, budget, value, scope, floors), scope, floors)


@dataclass(frozen=True)
class _Widths:
    """What is kept at each share to prune."""

    scores: Mapping[Coupling, Tensor]
    before: Mapping[Coupling, Tensor]
    multiple_of: int

    def at(self, share: float, scope: NodeScope, floors: Mapping[Coupling, int]) -> Keep:
        keep = _at(share, self.scores, _pools(self.scores, scope), self.multiple_of, floors)
        return {coupling: nodes & self.before.get(coupling, nodes) for coupling, nodes in keep.items()}

    def floors(self, least: int | float) -> dict[Coupling, int]:
        """The fewest nodes of each coupling: what an earlier stage pruned below its floor remains pruned."""
        return {
            coupling: min(max(1, floor_of(coupling.size, least)), _alive(self.before.get(coupling), coupling))
            for coupling in self.scores
        }


@dataclass(frozen=True)
class _Budget:
    known: Couplings
    before: Mapping[Coupling, Tensor]
    weights: Mapping[str, int]
    gone: Collection[str]

    def needs(self, keep: Keep) -> float:
        """The share of the network's parameters or multiply-adds that is left."""
        whole = cost(self.known, {}, self.weights)
        left = {name: each for name, each in self.weights.items() if name not in self.gone}
        return cost(self.known, {**self.before, **keep}, left) / whole


def _share(widths: _Widths, budget: _Budget, value: float, scope: NodeScope, floors: Mapping[Coupling, int]) -> float:
    """The lowest share to prune with which the rest is within the budget; 1 if none is."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = budget.needs(widths.at(middle, scope, floors)) <= value
        low, high = (low, middle) if fits else (middle, high)
    return high


def _least(widths: _Widths, budget: _Budget | None, value: float, scope: NodeScope) -> float:
    """The floor where none is given."""
    if len(widths.scores) < 2 or (scope == "layer" and budget is None):
        return 0  # none compete: each width has the amount by itself
    alike = value if budget is None else _share(widths, budget, value, "layer", widths.floors(0))
    return usual_floor(1 - alike)


def _alive(keep: Tensor | None, coupling: Coupling) -> int:
    return coupling.size if keep is None else int(keep.count_nonzero())


def _require_room(
    sparsity: float, pools: list[list[Coupling]], floors: Mapping[Coupling, int], least: int | float
) -> None:
    """Refuse a sparsity that the floors of competing couplings do not allow."""
    for pool in pools:
        size, kept = sum(coupling.size for coupling in pool), sum(floors[coupling] for coupling in pool)
        if round(sparsity * size) > size - kept:
            raise InputError(
                f"sparsity={sparsity:g} cannot be reached: min_keep={_shown(least)} keeps {kept} of the {size} nodes "
                f"of {', '.join(coupling.name for coupling in pool[:3])}{', ...' if len(pool) > 3 else ''}, so at most "
                f"{_percent(1 - kept / size)} can be pruned; ask for less{_without_floor(least)}"
            )


def _shown(least: int | float) -> str:
    return f"{least or 1:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _without_floor(least: int | float) -> str:
    return ", or set min_keep to 0, which leaves a single node of a layer if it comes to that" if least else ""


def pruned_first(scores: Tensor, keep: Tensor | None) -> Tensor:
    """The scores of a coupling's nodes; those pruned earlier rank below all others, since they count already."""
    scores = scores.float().cpu()
    return scores if keep is None else scores.masked_fill(~keep, -torch.inf)


def cost(known: Couplings, keep: Mapping[Coupling, Tensor], weights: Mapping[str, int]) -> int:
    """Entries of the network's parameters, each as often as `weights` says, when only the nodes of `keep` are left.

    Names of products in `weights` stand for their multiply-adds.
    """
    shapes = {name: list(known.shapes[name]) for name in weights if name in known.shapes}
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
    left = {coupling: int(nodes.count_nonzero()) for coupling, nodes in keep.items()}
    products = sum(weights[name] * known.multiply_adds(name, left) for name in weights if name not in shapes)
    return products + sum(weights[name] * torch.Size(shape).numel() for name, shape in shapes.items())


def weights_of(measure: Literal["params", "macs"], known: Couplings) -> dict[str, int]:
    """The cost of an entry of each parameter: one parameter, or its multiply-adds for a sample, and 1 of a product."""
    if measure == "params":
        return dict.fromkeys(known.shapes, 1)
    return {name: known.positions.get(name, 0) for name in known.shapes} | dict.fromkeys(known.products, 1)


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
    floors: Mapping[Coupling, int],
) -> Keep:
    """Prune the lowest round(sparsity * n) of each pool, as far as the floors leave so many.

    The best nodes of every coupling, as many as its floor, do not compete. Where rounding keeps more, it keeps the
    best.
    """
    keep: Keep = {}
    for pool in pools:
        together = torch.cat([_above_floor(scores[coupling], floors[coupling]) for coupling in pool])
        spare = len(together) - sum(floors[coupling] for coupling in pool)
        kept = torch.ones(len(together), dtype=torch.bool)
        kept[together.argsort(stable=True)[: min(round(sparsity * len(together)), spare)]] = False
        for coupling, mine in zip(pool, torch.split(kept, [coupling.size for coupling in pool]), strict=True):
            count = min(-(-int(mine.sum()) // multiple_of) * multiple_of, coupling.size)
            best = scores[coupling].argsort(descending=True, stable=True)[:count]
            keep[coupling] = torch.zeros(coupling.size, dtype=torch.bool).index_fill_(0, best, True)
    return keep


def _above_floor(scores: Tensor, floor: int) -> Tensor:
    """The scores with those of the `floor` best nodes at infinity."""
    best = scores.argsort(descending=True, stable=True)[:floor]
    return scores.index_fill(0, best, torch.inf)
