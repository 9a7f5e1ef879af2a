"""`WeightSelection`: which weights are pruned, those with the lowest scores."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, get_args

import torch
from torch import Tensor, nn

from compress.errors import InputError, TargetError
from compress.options import require_word, shown
from compress.select import gradients
from compress.select.amount import BUDGETS, Amount, WeightScope, shares_of
from compress.select.choose import choose, lowest
from compress.select.criteria import Criterion
from compress.select.floors import require_min_keep
from compress.select.pattern import Pattern
from compress.select.pruned import Pruned, with_earlier
from compress.select.ramp import progress_at
from compress.select.regrow import Regrowth, returning, share_at
from compress.select.scores import Scores, removed_first
from compress.select.scoring import Scoring, on_data
from compress.select.selection import Selection
from compress.select.targets import Target
from compress.shards import Part, gathered, mapped, spread, true_in
from compress.wording import count_of

SCOPES: Final[tuple[WeightScope, ...]] = get_args(WeightScope)

MaskList = Sequence[Tensor] | Mapping[str, Tensor]


class WeightSelection(Selection):
    """Exactly round(sparsity * n) weights, of all targets together or of each; see `compress.select.choose.choose`."""

    def __init__(
        self,
        targets: Sequence[Target],
        criterion: Criterion,
        amount: Amount | None,
        scoring: Scoring,
        earlier: Pruned,
        *,
        keep: MaskList | None = None,
        scope: str | Pattern | None = None,
        min_keep: int | float | None = None,
        regrow: Regrowth | None = None,
    ) -> None:
        """
        Args:
            keep: instead of an amount, the masks themselves: bool, True = keep, in the targets' order or by name.
            scope: what is ranked together: "global" (the default), "layer", "erk", or the groups of a pattern, which
                has its own share.
            regrow: which removed entries come back at each choice.

        Raises:
            InputError, TargetError: options that do not exist, or that do not fit weights.
        """
        super().__init__(criterion, amount, scoring, _placed(earlier, scoring.model))
        if keep is None and not criterion.ranks_weights():
            criterion.score_weights([], scoring)  # says that it ranks nodes
        if keep is None:
            self._require_data()
        if regrow is not None:
            scoring.require(regrow)
        if amount is not None and amount.measure in BUDGETS:
            raise InputError(f"{amount.measure} is for nodes, and the target is weights; use sparsity")
        self._targets, self._min_keep, self._regrow = targets, min_keep, regrow
        require_min_keep(min_keep)
        self._pattern = scope if isinstance(scope, Pattern) else None
        self._scope = "layer" if isinstance(scope, Pattern) else _scope(scope, amount)
        if self._pattern is not None:
            _require_fitting(self._pattern, targets, amount, min_keep)
        self.adjacent = []
        self.own_paths = [target.path for target in targets]
        self.paths = list(dict.fromkeys([*self.own_paths, *earlier.keep]))
        self._given = None if keep is None else _given(keep, targets)
        self._pruned_in: dict[str, int] = {}

    @property
    def names(self) -> Mapping[str, Collection[str]]:
        return {target.path: (target.path,) for target in self._targets}

    @property
    def layers(self) -> Mapping[str, int]:
        return {target.path: target.parameter.numel() for target in self._targets}

    @property
    def pruned_in(self) -> Mapping[str, int]:
        return self._pruned_in

    @property
    def expected(self) -> int:
        sizes = self.layers
        if self._amount is None:
            return self.count[0]
        if self._amount.layers is not None:
            shares = shares_of(self._amount.layers, self.names)
            return sum(round(shares[path] * size) for path, size in sizes.items())
        if self._pattern is not None:
            shapes = [(tuple(target.parameter.shape), input_dim(target)) for target in self._targets]
            return sum(self._pattern.count(*each) for each in shapes)
        pools = list(sizes.values()) if self._scope == "layer" else [sum(sizes.values())]
        return sum(round(self.target_share * size) for size in pools)

    def ranked(self) -> Callable[[Mapping[str, float]], dict[str, Tensor]]:
        scores = self._own_scores()

        def masks(shares: Mapping[str, float]) -> dict[str, Tensor]:
            found = dict(zip(self.layers, self._in_each(scores, shares), strict=True))
            self._note(found)
            return found

        return masks

    def _note(self, latest: Mapping[str, Tensor]) -> None:
        """Also count, now that all processes that have parts of the masks are here."""
        super()._note(latest)
        masks = {path: latest[path] for path in self.own_paths}
        kept = true_in(list(masks.values()))
        self._pruned_in = {path: masks[path].numel() - count for path, count in zip(masks, kept, strict=True)}

    def _in_each(self, scores: Sequence[Scores], shares: Mapping[str, float]) -> list[Tensor]:
        return [
            choose([score], shares[name], min_keep=self._min_keep, names=[name])[0]
            for name, score in zip(self.layers, scores, strict=True)
        ]

    def _masks(self, share: float, removed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        earlier = self._earlier.keep
        chosen = self._given if self._given is not None else self._choose(share, removed)
        return {**earlier, **with_earlier(dict(zip(self.own_paths, chosen, strict=True)), earlier)}

    def _choose(self, share: float, removed: Mapping[str, Tensor]) -> list[Tensor]:
        names = self.own_paths
        scores = self._scores(removed)
        ranked = scores
        if self._regrow is not None:
            back = self._returning(self._regrow, share, {name: removed[name] for name in names})
            # As many others are pruned instead.
            scores = [score.then(_back_last, mask) for score, mask in zip(scores, back, strict=True)]
        assert self._amount is not None
        if self._amount.layers is not None:
            shares = shares_of(self._amount.layers, self.names, share / self.target_share)
            chosen = self._in_each(scores, shares)
        elif self._pattern is not None:
            chosen = self._in_groups(self._pattern, scores, share / self.target_share)
        else:
            chosen = choose(scores, share, scope=self._scope, min_keep=self._min_keep, names=names)
        apart = [(name, [score], [keep]) for name, score, keep in zip(names, ranked, chosen, strict=True)]
        self._note_scores([(None, ranked, chosen)] if self._scope == "global" else apart, share)
        return chosen

    def _in_groups(self, pattern: Pattern, scores: Sequence[Scores], part: float) -> list[Tensor]:
        """Of what the pattern prunes by these scores, the part with the lowest ones, in each tensor."""
        chosen = []
        for target, score in zip(self._targets, scores, strict=True):
            mark = _in_rows(pattern, score.at_once(), input_dim(target))
            if part < 1.0:
                mark = lowest([score], round(part * true_in([mark])[0]), [target.path], spare=[mark])[0]
            chosen.append(mapped(torch.logical_not, mark))
        return chosen

    def _scores(self, removed: Mapping[str, Tensor]) -> list[Scores]:
        """Sparsity is that of the original: entries that are removed, or were pruned earlier, come first."""
        found = []
        earlier, own = self._earlier.keep, [removed[name] for name in self.own_paths]
        for name, score, gone, any_gone in zip(self.own_paths, self._own_scores(), own, true_in(own), strict=True):
            if name in earlier:
                score = score.then(_pruned_first, earlier[name])
            found.append(score.then(removed_first, gone) if any_gone else score)
        return found

    def _own_scores(self) -> Sequence[Scores]:
        with self._looking():
            return self.criterion.score_weights(self._targets, self._scoring)

    def _returning(self, wanted: Regrowth, share: float, removed: Mapping[str, Tensor]) -> list[Tensor]:
        """The removed entries of this pruner that come back, chosen within the tensors that compete with each other."""
        keep = self._earlier.keep
        may = list(with_earlier(removed, keep).values())
        if not any(true_in(may)):
            return may
        dead = [mapped(_or_pruned, mask, keep[name]) if name in keep else mask for name, mask in removed.items()]
        part = share_at(wanted.share, progress_at(share / self.target_share))
        slopes = self._slopes(wanted)
        if self._scope == "global":
            return returning(slopes, dead, may, part)
        return [returning([s], [d], [m], part)[0] for s, d, m in zip(slopes, dead, may, strict=True)]

    def _slopes(self, asker: Regrowth) -> list[Tensor]:
        """The gradient of the loss in every entry as it acts now, removed or not."""
        batches, loss = self._scoring.batches(asker, asker.samples), self._scoring.loss(asker)
        with on_data(asker), gradients.effective([(target.module, target.name) for target in self._targets]) as leaves:
            return gradients.mean(self._scoring.model, leaves, batches, loss)


def _placed(earlier: Pruned, model: nn.Module) -> Pruned:
    """Masks of a whole network with the placements of this one, which may be sharded."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in earlier.keep}
    return Pruned(
        {name: spread(mask, parameters[name]) for name, mask in earlier.keep.items()}, dict(earlier.keep_nodes)
    )


def _in_rows(pattern: Pattern, scores: Tensor, dim: int) -> Tensor:
    """`pattern.pruned`, contiguous. Where the groups are divided between processes, it sees the whole tensor."""
    if Part.of(scores).has_all_along(dim):
        return mapped(lambda part: pattern.pruned(part, dim).contiguous(), scores)
    return spread(pattern.pruned(gathered(scores), dim), scores)


def input_dim(target: Target) -> int:
    """The dimension of a weight that counts the inputs."""
    return 0 if isinstance(target.module, nn.modules.conv._ConvTransposeNd) else 1


def _require_fitting(pattern: Pattern, targets: Sequence[Target], amount: Amount | None, min_keep: object) -> None:
    if amount is not None and amount.layers is not None:
        raise InputError(
            f"the pattern {pattern} sets the share of each layer, and so does `layers`; keep one of the two"
        )
    if amount is not None and not math.isclose(amount.value, pattern.share):
        raise InputError(
            f"the pattern {pattern} prunes {pattern.share:g} of its weights, and sparsity is {amount.value:g}; leave "
            "sparsity out"
        )
    if min_keep is not None:
        raise InputError(f"the pattern {pattern} says how many weights are kept; leave min_keep out")
    flat = [target.path for target in targets if target.parameter.dim() < 2]
    if flat:
        raise TargetError(f"{', '.join(flat)}: no input dimension, which the pattern {pattern} needs; exclude them")


def _scope(wanted: str | None, amount: Amount | None) -> WeightScope:
    if amount is not None and amount.layers is not None:
        if wanted not in (None, "layer"):
            raise InputError(
                f"scope={wanted!r} distributes the amount over the layers, and `layers` sets it for each; keep "
                "one of the two"
            )
        return "layer"
    if wanted == "isomorphic":
        raise InputError("scope='isomorphic' is for nodes, and the target is weights; use global, layer or erk")
    wanted = "global" if wanted is None else wanted
    require_word("scope", wanted, SCOPES)
    return next(scope for scope in SCOPES if scope == wanted)


def _given(keep: MaskList, targets: Sequence[Target]) -> list[Tensor]:
    """The masks in the targets' order. Raises InputError and TargetError: they do not fit."""
    names = [target.path for target in targets]
    if isinstance(keep, Mapping):
        if keep.keys() != set(names):
            raise InputError(f"keep: found masks for {', '.join(map(str, keep))}; the targets are {', '.join(names)}")
        keep = [keep[name] for name in names]
    if not isinstance(keep, list | tuple):
        raise InputError(f"keep: found {shown(keep)}; expected a list of masks, or a dict of names and masks")
    if len(keep) != len(targets):
        raise InputError(
            f"keep: {count_of(len(keep), 'mask')} for {count_of(len(targets), 'target')}: {', '.join(names)}"
        )
    for mask, target in zip(keep, targets, strict=True):
        shape = tuple(target.parameter.shape)
        if not isinstance(mask, Tensor) or mask.shape != shape or mask.dtype != torch.bool:
            found = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise TargetError(f"keep: the mask for {target.path} is {found}; it must be bool {shape}")
    return [spread(mask, target.parameter) for mask, target in zip(keep, targets, strict=True)]


def _pruned_first(scores: Tensor, keep: Tensor) -> Tensor:
    return removed_first(scores, ~keep)


def _or_pruned(removed: Tensor, keep: Tensor) -> Tensor:
    return removed | ~keep


def _back_last(score: Tensor, back: Tensor) -> Tensor:
    return score.masked_fill(back, torch.finfo(score.dtype).max)
