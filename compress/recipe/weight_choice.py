"""Which weights a stage takes: the scores that its criterion gives them, and the lowest of those."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compress import metrics
from compress.recipe import schema
from compress.recipe.choice import Choice, Pruned, chance_of, scoring_batches, taken_first, with_earlier
from compress.recipe.setting import Setting
from compress.remove.masks import effective
from compress.select import criteria, gradients
from compress.select.choose import choose
from compress.select.targets import Target, resolve


class WeightChoice(Choice):
    def __init__(self, model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> None:
        super().__init__(pruned)
        assert isinstance(stage.target, schema.Weights)
        self._model, self._stage, self._setting = model, stage, setting
        self._targets = resolve(model, stage.target.weights, bias=stage.target.bias)
        self._chance = chance_of(setting, number)
        self.adjacent = []
        self.paths = list(dict.fromkeys([*(found.path for found in self._targets), *pruned.keep]))

    @property
    def count(self) -> tuple[int, int]:
        masks = [self._latest[target.path] for target in self._targets]
        return sum(int((~mask).sum()) for mask in masks), sum(mask.numel() for mask in masks)

    def _masks(self, sparsity: float, gone: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stage, names = self._stage, [target.path for target in self._targets]
        plain = _weight_scores(self._model, self._targets, stage.criterion, self._chance, self._setting)
        scores = [
            taken_first(taken_first(score, self._pruned.keep.get(name)), ~gone[name])
            for name, score in zip(names, plain, strict=True)
        ]
        scope = stage.scope or "global"
        assert scope != "isomorphic", "the schema refuses it"
        chosen = choose(scores, sparsity, scope=scope, min_keep=stage.min_keep, names=names)
        return {**self._pruned.keep, **with_earlier(dict(zip(names, chosen, strict=True)), self._pruned.keep)}


def _weight_scores(
    model: nn.Module,
    targets: Sequence[Target],
    criterion: schema.AnyCriterion,
    chance: torch.Generator,
    setting: Setting,
) -> list[Tensor]:
    """A score for every entry of the targets as they act now, larger = keep."""
    weights = [target.parameter for target in targets]
    match criterion:
        case schema.Gradient() | schema.Obd():
            return _gradient_scores(model, targets, criterion, setting)
        case schema.Random():
            return [criteria.random(weight, chance) for weight in weights]
        case schema.Lamp():
            return [criteria.lamp(weight) for weight in weights]
        case schema.ScaledMagnitude():
            return [
                criteria.scaled_magnitude(weight, criteria.fan_in(target.module, weight))
                for target, weight in zip(targets, weights, strict=True)
            ]
        case _:
            return [criteria.magnitude(weight) for weight in weights]


_BY_GRADIENT = {
    "taylor": (criteria.taylor, gradients.mean_abs),
    "taylor_square": (criteria.taylor_square, gradients.mean_square),
    "snip": (criteria.snip, gradients.mean),
}


def _gradient_scores(
    model: nn.Module, targets: Sequence[Target], criterion: schema.Gradient | schema.Obd, setting: Setting
) -> list[Tensor]:
    batches, loss = scoring_batches(setting, criterion.samples), metrics.loss(setting.task)
    places = [(target.module, target.name) for target in targets]
    with effective(places) as leaves:
        if isinstance(criterion, schema.Obd):
            return list(map(criteria.obd, leaves, gradients.fisher(model, places, leaves, batches, loss)))
        score, statistic = _BY_GRADIENT[criterion.kind]
        return list(map(score, leaves, statistic(model, leaves, batches, loss)))
