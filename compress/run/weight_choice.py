"""Which weights a stage takes: the scores that its criterion gives them, and the lowest of those."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from compress import tasks
from compress.recipe import schema
from compress.remove.gradual import progress_at
from compress.remove.masks import effective
from compress.run.choice import Choice, Pruned, chance_of, scoring_batches, shares_of, with_earlier
from compress.run.setting import Setting
from compress.select import criteria, gradients
from compress.select.choose import choose
from compress.select.regrow import returning, share_at
from compress.select.scores import Scores, gone_first
from compress.select.targets import Target, resolve


class WeightChoice(Choice):
    def __init__(self, model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> None:
        super().__init__(stage, pruned, chance_of(setting, number))
        assert isinstance(stage.target, schema.Weights)
        self._model, self._setting = model, setting
        self._targets = resolve(model, stage.target.weights, bias=stage.target.bias)
        self.adjacent = []
        self.own_paths = [found.path for found in self._targets]
        self.paths = list(dict.fromkeys([*self.own_paths, *pruned.keep]))

    @property
    def names(self) -> Mapping[str, Collection[str]]:
        return {target.path: (target.path,) for target in self._targets}

    @property
    def layers(self) -> Mapping[str, int]:
        return {target.path: target.parameter.numel() for target in self._targets}

    def ranked(self) -> Callable[[Mapping[str, float]], dict[str, Tensor]]:
        scores = _weight_scores(self._model, self._targets, self._stage.criterion, self._chance, self._setting)

        def masks(shares: Mapping[str, float]) -> dict[str, Tensor]:
            self._latest = dict(zip(self.layers, self._in_each(scores, shares), strict=True))
            return self._latest

        return masks

    def _in_each(self, scores: Sequence[Scores], shares: Mapping[str, float]) -> list[Tensor]:
        return [
            choose([score], shares[name], min_keep=self._stage.min_keep, names=[name])[0]
            for name, score in zip(self.layers, scores, strict=True)
        ]

    @property
    def count(self) -> tuple[int, int]:
        masks = [self._latest[target.path] for target in self._targets]
        total = sum(mask.numel() for mask in masks)
        return total - sum(int(mask.count_nonzero()) for mask in masks), total

    @property
    def expected(self) -> int:
        return going(self._targets, self._stage)

    def _masks(self, sparsity: float, gone: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stage, names = self._stage, self.own_paths
        scores = _weight_scores(self._model, self._targets, stage.criterion, self._chance, self._setting)
        scores = [
            score.then(_taken_first, self._pruned.keep[name]) if name in self._pruned.keep else score
            for name, score in zip(names, scores, strict=True)
        ]
        scores = [score.then(gone_first, gone[name]) for name, score in zip(names, scores, strict=True)]
        ranked = scores
        if stage.regrow is not None:
            back = self._returning(stage.regrow, sparsity, {name: gone[name] for name in names})
            # As many others then go in their stead.
            scores = [score.then(_back_last, mask) for score, mask in zip(scores, back, strict=True)]
        if stage.layers is not None:
            chosen = self._in_each(scores, shares_of(stage.layers, self.names, sparsity / stage.goes))
        else:
            scope = stage.scope or "global"
            assert scope != "isomorphic", "the schema refuses it"
            chosen = choose(scores, sparsity, scope=scope, min_keep=stage.min_keep, names=names)
        apart = [(name, [score], [keep]) for name, score, keep in zip(names, ranked, chosen, strict=True)]
        together = stage.layers is None and stage.scope in (None, "global")
        self._note_scores([(None, ranked, chosen)] if together else apart, sparsity)
        return {**self._pruned.keep, **with_earlier(dict(zip(names, chosen, strict=True)), self._pruned.keep)}

    def _returning(self, wanted: schema.Regrowth, sparsity: float, gone: Mapping[str, Tensor]) -> list[Tensor]:
        """What comes back of that which this stage took, chosen within the tensors that compete with each other."""
        keep = self._pruned.keep
        may = list(with_earlier(gone, keep).values())
        if not any(mask.any() for mask in may):
            return may
        dead = [mask | ~keep[name] if name in keep else mask for name, mask in gone.items()]
        share = share_at(wanted.share, progress_at(sparsity / self._stage.goes))
        slopes = _slopes(self._model, self._targets, wanted.samples, self._setting)
        if self._stage.scope == "global":
            return returning(slopes, dead, may, share)
        return [returning([s], [d], [m], share)[0] for s, d, m in zip(slopes, dead, may, strict=True)]


def going(targets: Sequence[Target], stage: schema.Stage) -> int:
    """How many of the targets' entries a stage takes: exactly, but for those that earlier ones took beyond it."""
    sizes = {target.path: target.parameter.numel() for target in targets}
    if stage.layers is not None:
        shares = shares_of(stage.layers, {path: (path,) for path in sizes})
        return sum(round(shares[path] * size) for path, size in sizes.items())
    return sum(
        round(stage.goes * size) for size in (sizes.values() if stage.scope == "layer" else [sum(sizes.values())])
    )


def _weight_scores(
    model: nn.Module,
    targets: Sequence[Target],
    criterion: schema.AnyCriterion,
    chance: torch.Generator,
    setting: Setting,
) -> list[Scores]:
    """A score for every entry of the targets as they act now, larger = keep."""
    weights = [target.parameter for target in targets]
    match criterion:
        case schema.Gradient() | schema.Obd():
            return _gradient_scores(model, targets, criterion, setting)
        case schema.Random():
            return [Scores.of(criteria.random(weight, chance)) for weight in weights]
        case schema.Lamp():
            return [Scores.of(criteria.lamp(weight)) for weight in weights]
        case schema.ScaledMagnitude():
            return [
                Scores(partial(criteria.scaled_magnitude, fan_in=criteria.fan_in(target.module, weight)), weight)
                for target, weight in zip(targets, weights, strict=True)
            ]
        case _:
            return [Scores(criteria.magnitude, weight) for weight in weights]


def _slopes(model: nn.Module, targets: Sequence[Target], samples: int | str, setting: Setting) -> list[Tensor]:
    """The gradient of the loss in every entry as it acts now, gone or not."""
    batches, loss = scoring_batches(setting, samples), tasks.loss(setting.task)
    with effective([(target.module, target.name) for target in targets]) as leaves:
        return gradients.mean(model, leaves, batches, loss)


_BY_GRADIENT = {
    "taylor": (criteria.taylor, gradients.mean_abs),
    "taylor_square": (criteria.taylor_square, gradients.mean_square),
    "snip": (criteria.snip, gradients.mean),
}


def _gradient_scores(
    model: nn.Module, targets: Sequence[Target], criterion: schema.Gradient | schema.Obd, setting: Setting
) -> list[Scores]:
    batches, loss = scoring_batches(setting, criterion.samples), tasks.loss(setting.task)
    places = [(target.module, target.name) for target in targets]
    score = criteria.obd if isinstance(criterion, schema.Obd) else _BY_GRADIENT[criterion.kind][0]
    with effective(places) as leaves:
        if isinstance(criterion, schema.Obd):
            found = gradients.fisher(model, places, leaves, batches, loss)
        else:
            found = _BY_GRADIENT[criterion.kind][1](model, leaves, batches, loss)
    # Of the parameters and not of the leaves, which are copies where masks are on.
    return [Scores(score, target.parameter, statistic) for target, statistic in zip(targets, found, strict=True)]


def _taken_first(scores: Tensor, keep: Tensor) -> Tensor:
    """Sparsity is of the original: what an earlier stage took already counts."""
    return gone_first(scores, ~keep)


def _back_last(score: Tensor, back: Tensor) -> Tensor:
    return score.masked_fill(back, torch.finfo(score.dtype).max)
