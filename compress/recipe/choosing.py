"""What a stage takes away: the recipe's target and criterion as a function that chooses, again and again if need be."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress import metrics
from compress.errors import InputError, TargetError
from compress.recipe import schema
from compress.recipe.setting import EVALUATION_BATCH, Setting
from compress.remove.compensate import compensate, moments
from compress.remove.masks import effective
from compress.select import criteria, gradients, nodes
from compress.select.axes import principal_axes
from compress.select.choose import choose
from compress.select.saliency import skeletonization
from compress.select.targets import Target, resolve
from compress.slim.coupling import Coupling, Member, couplings
from compress.slim.edits import insert_bottleneck
from compress.slim.flow import layer_of

COMPENSATION_SAMPLES = 5000
"""Training images on which the prediction of pruned nodes is fitted."""


@dataclass
class Pruned:
    """What the stages so far have taken, so that no later one gives it back.

    dense: the network before all of them, for distillation; a stage copies the network that it gets if it is absent.
    """

    keep: dict[str, Tensor] = field(default_factory=dict)  # parameter path -> bool mask, True = keep
    keep_nodes: dict[str, Tensor] = field(default_factory=dict)  # layer -> bool [nodes]
    dense: nn.Module | None = None


class Choice(ABC):
    """A `compress.remove.pruner.Chooser` for one stage, over the parameters `paths`: its own and earlier stages'.

    It is made before masks are laid on the model, and called while they are.
    """

    paths: Sequence[str]
    adjacent: Sequence[str]
    """Patterns of the parameters on both sides of pruned nodes."""

    def __init__(self, pruned: Pruned) -> None:
        self._pruned = pruned
        self._latest: dict[str, Tensor] = {}

    def __call__(self, sparsity: float, gone: Sequence[Tensor]) -> list[Tensor]:
        self._latest = self._masks(sparsity, dict(zip(self.paths, gone, strict=True)))
        return [self._latest[path] for path in self.paths]

    def settle(self) -> None:
        """The latest choice is final: no later stage gives it back."""
        self._pruned.keep.update(self._latest)

    def compensate(self, sparsity: float) -> None:
        """Before any mask: let the layers that read the chosen nodes make up for them.

        Raises:
            TargetError: a layer that cannot.
        """
        raise InputError("compensate is for nodes; the target is weights")

    @property
    @abstractmethod
    def count(self) -> tuple[int, int]:
        """(how many weights or nodes go by the latest choice, of how many); earlier stages may have taken more."""

    @abstractmethod
    def _masks(self, sparsity: float, gone: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


def choice(model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> Choice:
    """The choice of stage `number` (from 0).

    Raises:
        TargetError, UnsupportedModelError: targets that do not exist or cannot be pruned.
    """
    if isinstance(stage.target, schema.Nodes):
        layers = stage.target.nodes
        if isinstance(stage.criterion, schema.PrincipalAxes):
            layers = tuple(_to_axes(model, layer, stage.criterion, setting) for layer in layers)
        return _NodeChoice(model, stage, layers, number, pruned, setting)
    return _WeightChoice(model, stage, stage.target, number, pruned, setting)


class _WeightChoice(Choice):
    def __init__(
        self,
        model: nn.Module,
        stage: schema.Stage,
        target: schema.Weights,
        number: int,
        pruned: Pruned,
        setting: Setting,
    ) -> None:
        super().__init__(pruned)
        self._model, self._stage, self._setting = model, stage, setting
        self._targets = resolve(model, target.weights, bias=target.bias)
        self._chance = _chance(setting, number)
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
            _taken_first(_taken_first(score, self._pruned.keep.get(name)), ~gone[name])
            for name, score in zip(names, plain, strict=True)
        ]
        chosen = choose(scores, sparsity, scope=stage.scope or "global", min_keep=stage.min_keep, names=names)
        return {**self._pruned.keep, **_with_earlier(dict(zip(names, chosen, strict=True)), self._pruned.keep)}


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


class _NodeChoice(Choice):
    """Nodes of layers, with all that hangs on them; what was once chosen stays chosen."""

    def __init__(
        self,
        model: nn.Module,
        stage: schema.Stage,
        layers: Sequence[str],
        number: int,
        pruned: Pruned,
        setting: Setting,
    ) -> None:
        super().__init__(pruned)
        self._model, self._stage, self._setting = model, stage, setting
        structure = couplings(model, setting.example)
        self._coupled = {layer: structure.of(layer) for layer in layers}
        self._chance = _chance(setting, number)
        self._keep = dict(pruned.keep_nodes)
        members = [
            member.tensor
            for coupling in self._coupled.values()
            for member in coupling.members
            if member.role != "follows"
        ]
        self.adjacent = [f"{side}.*" for side in sorted({tensor.rpartition(".")[0] for tensor in members})]
        self.paths = list(dict.fromkeys([*members, *pruned.keep]))

    @property
    def count(self) -> tuple[int, int]:
        kept = [self._keep[layer] for layer in self._coupled]
        return sum(int((~keep).sum()) for keep in kept), sum(len(keep) for keep in kept)

    def compensate(self, sparsity: float) -> None:
        self._masks(sparsity, {})  # what is chosen stays chosen: the pruner comes to the same
        readers = {
            layer_of(member.tensor): self._keep[layer]
            for layer, coupling in self._coupled.items()
            for member in coupling.members
            if member.role == "reads"
        }
        compensate(self._model, readers, scoring_batches(self._setting, COMPENSATION_SAMPLES))

    def settle(self) -> None:
        super().settle()
        self._pruned.keep_nodes.update(self._keep)

    def _masks(self, sparsity: float, gone: Mapping[str, Tensor]) -> dict[str, Tensor]:
        layers = list(self._coupled)
        scores = _node_scores(self._model, self._stage.criterion, self._coupled, self._chance, self._setting)
        ranked = [_taken_first(scores[layer], self._keep.get(layer)) for layer in layers]
        chosen = choose(ranked, sparsity, scope="layer", min_keep=self._stage.min_keep, names=layers)
        self._keep |= _with_earlier(dict(zip(layers, chosen, strict=True)), self._keep)
        masks: dict[str, Tensor] = {}
        for layer, coupling in self._coupled.items():
            masks |= _with_earlier(coupling.masks(self._model, self._keep[layer]), masks)
        return {**self._pruned.keep, **_with_earlier(masks, self._pruned.keep)}


def _to_axes(model: nn.Module, layer: str, criterion: schema.PrincipalAxes, setting: Setting) -> str:
    """Take apart the layer that reads the nodes of `layer`; the name of the layer whose nodes are the axes."""
    coupling = couplings(model, setting.example).of(layer)
    readers = {layer_of(member.tensor) for member in coupling.members if member.role == "reads"}
    if len(readers) != 1:
        raise TargetError(
            f"{len(readers)} layers read the nodes of {layer!r} ({', '.join(sorted(readers))}); principal_axes is for "
            "nodes that a single Linear reads"
        )
    (reader,) = readers
    found = moments(model, {reader: coupling.size}, scoring_batches(setting, criterion.samples))[reader]
    linear = model.get_submodule(reader)
    assert isinstance(linear, nn.Linear)
    return insert_bottleneck(model, reader, *principal_axes(linear.weight, linear.bias, found))


def _node_scores(
    model: nn.Module,
    criterion: schema.AnyCriterion,
    coupled: Mapping[str, Coupling],
    chance: torch.Generator,
    setting: Setting,
) -> dict[str, Tensor]:
    """A score for every node of the layers, larger = keep."""
    loss = metrics.loss(setting.task)
    match criterion:
        case schema.Random():
            return {layer: torch.rand(coupling.size, generator=chance) for layer, coupling in coupled.items()}
        case schema.PrincipalAxes():  # the widest axis is the first node
            return {layer: torch.arange(coupling.size, 0, -1.0) for layer, coupling in coupled.items()}
        case schema.Norms():
            return {layer: _norms(model, coupling) for layer, coupling in coupled.items()}
        case schema.Variance():
            seen = {layer: _taps(model, layer, coupling)[0] for layer, coupling in coupled.items()}
            return nodes.variance(model, seen, scoring_batches(setting, criterion.samples))
        case schema.Ablation():
            taps = {layer: _taps(model, layer, coupling) for layer, coupling in coupled.items()}
            return nodes.ablation(model, taps, scoring_batches(setting, criterion.samples), loss)
        case schema.Skeletonization(error=error, reduce=reduce, samples=samples):
            batches = scoring_batches(setting, samples)
            saliency = skeletonization(model, list(coupled), batches, loss, error=error, reduce=reduce)
            return {layer: _per_node(saliency[layer], layer, coupling) for layer, coupling in coupled.items()}
        case _:
            return {layer: _row_norms(model, layer, coupling) for layer, coupling in coupled.items()}


def scoring_batches(setting: Setting, samples: int | str) -> Iterator[tuple[Tensor, Tensor]]:
    """(input, target) batches of the first `samples` training images, or of "all"."""
    batches = setting.data.batches("train", EVALUATION_BATCH, setting.task, setting.device)()
    return iter(batches) if isinstance(samples, str) else _first(batches, samples)


def _row_norms(model: nn.Module, layer: str, coupling: Coupling) -> Tensor:
    """Norm of each node's incoming weights."""
    member = _writer(layer, coupling)
    path, _, name = member.tensor.rpartition(".")
    squares = criteria.row_norm(getattr(model.get_submodule(path), name), member.dim).square()
    return _per_node(squares, layer, coupling).sqrt()


def _norms(model: nn.Module, coupling: Coupling) -> Tensor:
    """Norm of all rows and biases of each node times norm of all its columns."""
    sides: dict[str, list[Tensor]] = {"writes": [], "reads": []}
    for member in coupling.members:
        path, _, name = member.tensor.rpartition(".")
        along = getattr(model.get_submodule(path), name).movedim(member.dim, 0)
        parts = along.reshape(member.outer, member.size, member.inner, -1).transpose(0, 1)
        sides[member.role].append(parts.flatten(1))
    return criteria.norms(sides["writes"], sides["reads"])


def _taps(model: nn.Module, layer: str, coupling: Coupling) -> list[nodes.Tap]:
    """All layers that read the nodes, which is behind the activation function; or else the layer's own output."""
    readers = [member for member in coupling.members if member.role == "reads"]
    modules = [model.get_submodule(member.tensor.rpartition(".")[0]) for member in readers]
    if readers and all(isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) for module in modules):
        return [nodes.Tap(member.tensor.rpartition(".")[0], "input", _owner(member)) for member in readers]
    return [nodes.Tap(layer, "output", _owner(_writer(layer, coupling)))]


def _owner(member: Member) -> Tensor:
    """The node that each position along the member's dimension belongs to."""
    every = torch.arange(member.size)[None, :, None]
    return every.expand(member.outer, member.size, member.inner).flatten()


def _per_node(scores: Tensor, layer: str, coupling: Coupling) -> Tensor:
    """Add up what belongs to one node, where a layer has several outputs to the node (before an Unflatten)."""
    return _writer(layer, coupling).per_node(scores)


def _writer(layer: str, coupling: Coupling) -> Member:
    """The weight of `layer`, whose rows are the nodes."""
    return next(member for member in coupling.members if member.tensor == f"{layer}.weight")


def _first(batches: Iterable[tuple[Tensor, Tensor]], samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    left = samples
    for inputs, target in batches:
        yield inputs[:left], target[:left]
        left -= len(inputs)
        if left <= 0:
            return


def _with_earlier(masks: Mapping[str, Tensor], earlier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks, with nothing coming back that an earlier one took."""
    return {name: mask & earlier[name] if name in earlier else mask for name, mask in masks.items()}


def _taken_first(scores: Tensor, keep: Tensor | None) -> Tensor:
    """Sparsity is of the original: what is taken already counts, so it goes first."""
    return scores if keep is None else scores.masked_fill(~keep, -torch.inf)


def _chance(setting: Setting, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(setting.seed + number)
