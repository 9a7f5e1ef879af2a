"""`NodeSelection`: which nodes are pruned, across all layers whose widths are coupled."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, get_args

import torch
from torch import Tensor

from compress.errors import InputError, TargetError
from compress.graph.coupling import Coupling, Couplings, masks_of
from compress.graph.flow import layer_of
from compress.graph.traced_once import TracedOnce
from compress.inputs import inputs_of
from compress.options import check, require_word, shown
from compress.select.amount import BUDGETS, Amount, NodeScope, shares_of
from compress.select.branch_selection import gone_with
from compress.select.budgets import Keep, choose_nodes, cost, pruned_first, weights_of
from compress.select.criteria import Criterion
from compress.select.floors import require_min_keep
from compress.select.pruned import Pruned, packed, unpacked, with_earlier
from compress.select.scoring import Scoring
from compress.select.selection import Group, Selection
from compress.select.targets import Nodes, couplings_of
from compress.wording import count_of

SCOPES: Final[tuple[NodeScope, ...]] = get_args(NodeScope)

NodeScores = dict[Coupling, Tensor]


class NodeSelection(Selection):
    """Nodes that were once chosen remain chosen: they are expensive to score, and their scores change little."""

    def __init__(
        self,
        target: Nodes,
        criterion: Criterion,
        amount: Amount | None,
        scoring: Scoring,
        earlier: Pruned,
        example: object,
        traced: TracedOnce,
        *,
        keep: Sequence[Tensor] | Mapping[str, Tensor] | None = None,
        scope: str | None = None,
        multiple_of: int = 1,
        min_keep: int | float | None = None,
        restore: bool = False,
    ) -> None:
        """
        Args:
            example: what the network is called with, to trace it; see `compress.inputs`.
            traced: the owner of the traces.
            keep: instead of an amount, the masks themselves: layer -> bool [nodes], True = keep.
            scope: what competes: "layer" (the default), "isomorphic", or "global"; see `choose_nodes`.
            restore: whether a run is resumed: the network's weights are loaded later, and nothing is computed from
                them here.

        Raises:
            InputError, TargetError, UnsupportedModelError: options that do not exist or do not fit nodes, layers that
                do not exist, or a network that cannot be traced.
        """
        super().__init__(criterion, amount, scoring, earlier)
        if keep is None and not criterion.ranks_nodes():
            criterion.score_nodes([], scoring)  # says that it ranks weights
        if keep is None and not restore:
            self._require_data()
        check("multiple_of", multiple_of, int, ge=1)
        require_min_keep(min_keep)
        self._scope, self._multiple_of, self._min_keep = _scope(scope, amount), multiple_of, min_keep
        self._compared = scope is not None
        model = scoring.model
        self.known = traced.couplings(model, example)
        self._traces[inputs_of(example).signature()] = self.known.trace
        self._coupled = couplings_of(model, target, self.known)
        with self._looking():
            layers = criterion.restructure(self._coupled, scoring, self.known, earlier, restore=restore)
        if layers is not None:
            self.known = traced.couplings(model, example)
            self._traces = {inputs_of(example).signature(): self.known.trace}
            self._coupled = self.known.matching(layers)
        self._given = None if keep is None else _given(keep, self.known, self._coupled)
        self._keep = dict(earlier.keep_nodes)
        self._gone = gone_with(model, self.known.trace, earlier)
        self._coupled = _not_gone(self._coupled, self._gone)
        members = [member.tensor for found in self._coupled for member in found.members if member.role != "follows"]
        self.adjacent = sorted({f"{side}.*" if side else name for side, _, name in map(_parts, members)})
        self.paths = list(dict.fromkeys([*members, *earlier.keep]))

    @property
    def coupled(self) -> Mapping[Coupling, Tensor]:
        """The targeted couplings, with the nodes that the latest choice keeps."""
        every = {coupling: torch.ones(coupling.size, dtype=torch.bool) for coupling in self._coupled}
        return {coupling: self._keep.get(coupling, nodes) for coupling, nodes in every.items()}

    @property
    def names(self) -> Mapping[str, Collection[str]]:
        return {names[0]: names for names in names_of(self.known, self._coupled).values()}

    @property
    def layers(self) -> Mapping[str, int]:
        return dict(zip(self.names, (coupling.size for coupling in self._coupled), strict=True))

    @property
    def pruned_in(self) -> Mapping[str, int]:
        return dict(zip(self.names, (int((~keep).sum()) for keep in self.coupled.values()), strict=True))

    @property
    def expected(self) -> int | None:
        if self._amount is None:
            return self.count[0]
        plain = self._amount.measure == "sparsity" and self._multiple_of == 1 and not self._min_keep
        if not plain or self._scope != "layer":
            return None
        shares = dict.fromkeys(self.layers, self.target_share)
        if self._amount.layers is not None:
            shares = shares_of(self._amount.layers, self.names)
        # The last node of a layer is kept.
        return sum(min(round(shares[name] * size), size - 1) for name, size in self.layers.items())

    @property
    def achieved(self) -> float:
        if self._amount is None or self._amount.measure == "sparsity":
            return super().achieved
        weights = weights_of(self._amount.measure, self.known)
        left = {name: each for name, each in weights.items() if name not in self._gone}
        return cost(self.known, self._keep, left) / cost(self.known, {}, weights)

    @property
    def kept_nodes(self) -> Mapping[Coupling, Tensor]:
        """The kept nodes of all couplings that this or an earlier pruner has chosen from."""
        return self._keep

    def ranked(self) -> Callable[[Mapping[str, float]], dict[str, Tensor]]:
        scores = self._scores()  # each layer by itself, so that they need not be comparable

        def masks(shares: Mapping[str, float]) -> dict[str, Tensor]:
            self._keep = self._in_each(scores, [shares[name] for name in self.names], {})
            return masks_of(self._scoring.model, self._keep)

        return masks

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "keep_nodes": packed(self._keep)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._keep = unpacked(state["keep_nodes"])

    def add_to(self, pruned: Pruned) -> None:
        super().add_to(pruned)
        pruned.keep_nodes.update(self._keep)

    def _masks(self, share: float, removed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        chosen = self._given if self._given is not None else self._choose(share)
        self._keep |= with_earlier(chosen, self._keep)
        masks = masks_of(self._scoring.model, dict(self.coupled))
        return {**self._earlier.keep, **with_earlier(masks, self._earlier.keep)}

    def _choose(self, share: float) -> Keep:
        if share == 0:  # the start of a ramp
            return {coupling: torch.ones(coupling.size, dtype=torch.bool) for coupling in self._coupled}
        scores = self._scores()
        if self._compared:
            scores = self._by_price(comparable(scores, self.criterion, self._keep))
        chosen = self._within(scores, share)
        self._note_scores(self._groups(scores, chosen), share)
        return chosen

    def _within(self, scores: NodeScores, share: float) -> Keep:
        """`choose_nodes` as the amount has it, at a share of what is pruned in the end."""
        amount = self._amount
        assert amount is not None
        if amount.layers is not None:
            shares = shares_of(amount.layers, self.names, share / self.target_share)
            return self._in_each(scores, list(shares.values()), self._keep)
        value = share if amount.measure == "sparsity" else 1.0 - share
        return choose_nodes(
            self.known,
            scores,
            amount.measure,
            value,
            scope=self._scope,
            multiple_of=self._multiple_of,
            min_keep=self._min_keep,
            earlier=self._keep,
            gone=self._gone,
        )

    def _by_price(self, scores: NodeScores) -> NodeScores:
        """Errors for each parameter or multiply-add that a node takes, where nodes share such a budget."""
        measure = None if self._amount is None else self._amount.measure
        if not self.criterion.adds_up or measure not in BUDGETS:
            return scores
        weights = weights_of(measure, self.known)
        whole = cost(self.known, {}, weights)
        prices = {}
        for coupling in scores:
            others = torch.arange(coupling.size) > 0
            prices[coupling] = max(1, whole - cost(self.known, {coupling: others}, weights))
        return {coupling: score / prices[coupling] for coupling, score in scores.items()}

    def _in_each(self, scores: NodeScores, shares: Sequence[float], earlier: Keep) -> Keep:
        """Of each coupling its own share, in the order of `scores`."""
        keep: Keep = {}
        for (coupling, score), share in zip(scores.items(), shares, strict=True):
            keep |= choose_nodes(
                self.known,
                {coupling: score},
                "sparsity",
                share,
                multiple_of=self._multiple_of,
                min_keep=self._min_keep,
                earlier=earlier,
            )
        return keep

    def _groups(self, scores: NodeScores, chosen: Keep) -> list[Group]:
        """Scores as the choice saw them, without nodes that were pruned earlier."""
        living = {coupling: pruned_first(score, self._keep.get(coupling)) for coupling, score in scores.items()}
        if self._scope == "global":
            return [(None, list(living.values()), [chosen[coupling] for coupling in living])]
        return [(coupling.name, [score], [chosen[coupling]]) for coupling, score in living.items()]

    def _scores(self) -> NodeScores:
        with self._looking():
            return self.criterion.score_nodes(self._coupled, self._scoring)


def comparable(scores: NodeScores, criterion: Criterion, keep: Mapping[Coupling, Tensor]) -> NodeScores:
    """Scores of different couplings on one scale.

    Scores in terms of the loss are on one scale already. Scores that grow with a node's entries are divided by the mean
    over the kept nodes of their coupling.
    """
    if not criterion.per_entry:
        return scores
    return {coupling: _relative(score, keep.get(coupling)) for coupling, score in scores.items()}


def _relative(score: Tensor, keep: Tensor | None) -> Tensor:
    mean = (score if keep is None else score[keep.to(score.device)]).mean()
    return score / mean if mean > 0 else score  # all of them are zero


def names_of(known: Couplings, wanted: Iterable[Coupling]) -> dict[Coupling, list[str]]:
    """The layers by which each coupling can be named in a target; the first is the name that it is known by."""
    found: dict[Coupling, list[str]] = {}
    for coupling in wanted:
        layers = dict.fromkeys(layer_of(member.tensor) for member in coupling.members if member.role == "writes")
        found[coupling] = [layer for layer in layers if known.of(layer) == coupling]
    return found


def _parts(tensor: str) -> tuple[str, str, str]:
    return tensor.rpartition(".")


def _scope(wanted: str | None, amount: Amount | None) -> NodeScope:
    if amount is not None and amount.layers is not None and wanted not in (None, "layer"):
        raise InputError(
            f"scope={wanted!r} distributes the amount over the layers, and `layers` sets it for each; keep one "
            "of the two"
        )
    if wanted == "erk":
        raise InputError(
            "scope='erk' shares weights out over tensors, and the target is nodes; use layer, isomorphic or global"
        )
    wanted = "layer" if wanted is None else wanted
    require_word("scope", wanted, SCOPES)
    return next(scope for scope in SCOPES if scope == wanted)


def _not_gone(coupled: Sequence[Coupling], gone: Collection[str]) -> tuple[Coupling, ...]:
    """Couplings without those of branches that are removed.

    Raises:
        TargetError: none is left.
    """
    left = tuple(coupling for coupling in coupled if not {member.tensor for member in coupling.members} <= set(gone))
    if coupled and not left:
        raise TargetError(f"an earlier stage has removed the branches of {', '.join(one.name for one in coupled)}")
    return left


def _given(keep: object, known: Couplings, coupled: Sequence[Coupling]) -> Keep:
    """The masks by coupling. Raises InputError and TargetError: they do not fit."""
    if not isinstance(keep, Mapping):
        raise InputError(f"keep: found {shown(keep)}; of nodes it is a dict of layers and their masks")
    found: Keep = {}
    for layer, mask in keep.items():
        if not isinstance(layer, str):
            raise InputError(f"keep: found {layer!r}; expected a dict of layers' names and masks")
        coupling = known.of(layer)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (coupling.size,):
            what = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise TargetError(f"keep: the mask for {layer} is {what}; it must be bool ({coupling.size},)")
        if not mask.any():
            raise TargetError(
                f"keep: the mask for {layer} keeps none of its {count_of(coupling.size, 'node')}; keep one at least"
            )
        found[coupling] = mask.cpu()
    missing = [coupling.name for coupling in coupled if coupling not in found]
    if missing or len(found) != len(coupled):
        raise InputError(f"keep: found masks for {', '.join(keep)}; the target is {', '.join(c.name for c in coupled)}")
    return found
