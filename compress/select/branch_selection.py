"""`BranchSelection`: which residual branches are removed as a whole."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.branches import Branch, residual_branches, without
from compress.graph.coupling import Couplings
from compress.graph.trace import Trace
from compress.graph.traced_once import TracedOnce
from compress.inputs import inputs_of
from compress.select.amount import BUDGETS, Amount
from compress.select.budgets import cost, weights_of
from compress.select.criteria import Criterion
from compress.select.pruned import Pruned
from compress.select.scoring import Scoring
from compress.select.selection import Selection
from compress.select.targets import Branches, branches_of


class BranchSelection(Selection):
    """The order in which branches go is found once, before the network has masks."""

    def __init__(
        self,
        target: Branches,
        criterion: Criterion,
        amount: Amount,
        scoring: Scoring,
        earlier: Pruned,
        example: object,
        traced: TracedOnce,
        *,
        restore: bool = False,
    ) -> None:
        """
        Args:
            example: what the network is called with, to trace it; see `compress.inputs`.
            traced: the owner of the traces.
            restore: whether a run is resumed: the choice is loaded later, and nothing is computed from the weights.

        Raises:
            InputError, TargetError, UnsupportedModelError: options that do not exist or do not fit branches, branches
                that do not exist or cannot be removed, an amount out of reach, or a network that cannot be traced.
        """
        super().__init__(criterion, amount, scoring, earlier)
        if amount.layers is not None:
            raise InputError("layers is for weights and nodes, and the target is branches, which go as a whole")
        model = scoring.model
        self._asked = amount
        self.known = traced.couplings(model, example)
        self._traces[inputs_of(example).signature()] = self.known.trace
        every = residual_branches(model, self.known.trace).found
        self._own = branches_of(model, target, residual_branches(model, self.known.trace))
        self._prices = _Prices(self.known, every, earlier, amount)
        self.removed_before = removed_earlier(every, earlier)
        self.adjacent: Sequence[str] = []
        self.paths = list(dict.fromkeys([*(name for branch in self._own for name in branch.ends), *earlier.keep]))
        self._order: list[str] = []
        self._removed = {branch.name for branch in self.removed_before}
        cost_without = criterion.branch_cost(scoring)
        if not restore:
            with self._looking():
                self._order = self._ranked(cost_without)

    @property
    def names(self) -> Mapping[str, Collection[str]]:
        return {branch.name: (branch.name,) for branch in self._own}

    @property
    def layers(self) -> Mapping[str, int]:
        return {branch.name: 1 for branch in self._own}

    @property
    def pruned_in(self) -> Mapping[str, int]:
        return {branch.name: int(branch.name in self._removed) for branch in self._own}

    @property
    def expected(self) -> int | None:
        return round(self._asked.value * len(self._own)) if self._asked.measure == "sparsity" else None

    @property
    def achieved(self) -> float:
        if self._asked.measure == "sparsity":
            return super().achieved
        return self._prices.left(self._removed)

    def ranked(self) -> Callable[[Mapping[str, float]], dict[str, Tensor]]:
        raise InputError("a branch goes as a whole, and has no shares to try; target weights or nodes here")

    def compensate(self, keep: Mapping[str, Tensor] | None = None) -> None:
        gone = self._removed - {branch.name for branch in self.removed_before}
        self._compensated(self._latest if keep is None else keep, gone)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "order": self._order, "removed": sorted(self._removed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._order, self._removed = list(state["order"]), set(state["removed"])

    def _masks(self, share: float, removed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._removed |= self._up_to(share)
        masks = dict(self._earlier.keep)
        for branch in self._own:
            for name in branch.ends:
                own = _like(self._scoring.model, name)
                gone = branch.name in self._removed
                masks[name] = torch.zeros_like(own) if gone else masks.get(name, own)
        return masks

    def _up_to(self, share: float) -> set[str]:
        """The first branches of the order, as many as the share to prune by now takes."""
        found = {branch.name for branch in self.removed_before}
        for name in self._order:
            if self._prices.reached(found, share, self._own):
                break
            found = self._prices.with_inner(found | {name})
        return found

    def _ranked(self, cost_without: Callable[[Sequence[Branch]], float]) -> list[str]:
        """Greedily: the cheapest branch first, then the cheapest of the rest without it.

        Costs of the others are taken again only while they could be the cheapest: they rarely fall when branches go
        (Minoux, "Accelerated greedy algorithms", 1978).
        """
        by_name = {branch.name: branch for branch in self._prices.every}
        gone = {branch.name for branch in self.removed_before}

        def now(names: Collection[str]) -> float:
            return cost_without([by_name[name] for name in names])

        if self._prices.reached(gone, self._asked.share, self._own):
            return []
        order: list[str] = []
        whole = now(gone)
        rises: dict[str, float] = {}
        while not self._prices.reached(gone, self._asked.share, self._own):
            fresh: set[str] = set()
            open_ones = [branch.name for branch in self._own if self._prices.fits(gone, branch.name, self._own)]
            if not open_ones:
                raise self._prices.refusal(gone, self._asked)
            for name in open_ones:
                if name not in rises:
                    rises[name] = now(gone | {name}) - whole
                    fresh.add(name)
            while (best := min(open_ones, key=lambda name: self._prices.worth(gone, name, rises[name]))) not in fresh:
                rises[best] = now(gone | {best}) - whole
                fresh.add(best)
            order.append(best)
            gone = self._prices.with_inner(gone | {best})
            whole += rises[best]
        return order


def removed_earlier(every: Sequence[Branch], earlier: Pruned) -> tuple[Branch, ...]:
    """The branches that earlier pruners have removed: nothing is kept of the layers at their ends."""
    return tuple(
        branch
        for branch in every
        if all(name in earlier.keep and not bool(earlier.keep[name].any()) for name in branch.ends)
    )


def gone_with(model: nn.Module, trace: Trace, earlier: Pruned) -> set[str]:
    """What went with the branches that earlier pruners have removed; see `only_in`."""
    if not earlier.keep:
        return set()
    return only_in(trace, removed_earlier(residual_branches(model, trace).found, earlier))


def only_in(trace: Trace, removed: Sequence[Branch]) -> set[str]:
    """Names of the network's own tensors, and of the operators, that nothing uses without some branches."""
    return _used(trace) - _used(without(trace, removed)) if removed else set()


def _used(trace: Trace) -> set[str]:
    own = {str(node.target) for node in trace.graph.nodes if node.op == "get_attr" and node.users}
    return own | {node.name for node in trace.graph.nodes if node.op == "call_function"}


@dataclass(frozen=True)
class _Prices:
    """What is left of a network without some branches, by their names."""

    known: Couplings
    every: Sequence[Branch]
    earlier: Pruned
    amount: Amount
    _left: dict[frozenset[str], float] = field(default_factory=dict)
    _inner: dict[frozenset[str], set[str]] = field(default_factory=dict)

    def left(self, removed: Collection[str]) -> float:
        """The share of the parameters or multiply-adds that is left."""
        assert self.amount.measure in BUDGETS
        key = frozenset(removed)
        if key not in self._left:
            weights = weights_of(self.amount.measure, self.known)
            lost = only_in(self.known.trace, self._named(key))
            kept = {name: each for name, each in weights.items() if name not in lost}
            self._left[key] = cost(self.known, self.earlier.keep_nodes, kept) / cost(self.known, {}, weights)
        return self._left[key]

    def with_inner(self, removed: Collection[str]) -> set[str]:
        """The branches with those inside of them, which go with them."""
        key = frozenset(removed)
        if key not in self._inner:
            joins = {node.name for node in without(self.known.trace, self._named(key)).graph.nodes}
            self._inner[key] = {branch.name for branch in self.every if branch.join not in joins}
        return self._inner[key]

    def reached(self, removed: Collection[str], share: float, own: Sequence[Branch]) -> bool:
        """Whether no more branches need to go for a share to prune."""
        if self.amount.measure == "sparsity":
            return sum(branch.name in removed for branch in own) >= round(share * len(own))
        return self.left(removed) <= 1.0 - share + 1e-12

    def fits(self, removed: set[str], name: str, own: Sequence[Branch]) -> bool:
        """Whether a branch can go, and not more branches with it than are asked for."""
        if name in removed:
            return False
        if self.amount.measure != "sparsity":
            return True
        after = self.with_inner(removed | {name})
        return sum(branch.name in after for branch in own) <= round(self.amount.share * len(own))

    def worth(self, removed: set[str], name: str, rise: float) -> float:
        """The rise of the loss; for a budget, that for each part of what is saved."""
        if self.amount.measure == "sparsity" or rise <= 0:
            return rise
        return rise / max(1e-12, self.left(removed) - self.left(removed | {name}))

    def refusal(self, removed: Collection[str], amount: Amount) -> InputError:
        return InputError(
            f"{amount.measure}={amount.value:g} cannot be reached: without the targeted branches, "
            f"{100 * self.left(removed):.3g} % of the {amount.measure} are left; ask for more, or prune nodes "
            "as well"
        )

    def _named(self, names: Collection[str]) -> list[Branch]:
        return [branch for branch in self.every if branch.name in names]


def _like(model: nn.Module, name: str) -> Tensor:
    """A mask that keeps everything."""
    path, _, leaf = name.rpartition(".")
    return torch.ones_like(getattr(model.get_submodule(path), leaf), dtype=torch.bool)
