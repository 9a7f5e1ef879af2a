"""Which nodes a stage takes, with all that hangs on them: layers, channels or heads whose widths are coupled."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import TargetError
from compress.graph.coupling import Coupling, Couplings
from compress.graph.flow import layer_of
from compress.recipe import schema
from compress.remove.compensate import compensate, moments
from compress.run.choice import (
    Choice,
    Group,
    Pruned,
    chance_of,
    packed,
    scoring_batches,
    shares_of,
    unpacked,
    with_earlier,
)
from compress.run.node_scores import Scores, comparable, node_scores
from compress.run.setting import Setting
from compress.select.axes import principal_axes
from compress.select.budgets import Keep, Ranking, choose_nodes, cost, masks_of, taken_first, weights_of
from compress.slimming.edits import insert_bottleneck

COMPENSATION_SAMPLES = 5000
"""Training images on which the prediction of pruned nodes is fitted."""

_RANKINGS: Mapping[str, Ranking] = {"layer": "coupling", "isomorphic": "isomorphic", "global": "global"}


class NodeChoice(Choice):
    """What was once chosen stays chosen."""

    def __init__(self, model: nn.Module, stage: schema.Stage, number: int, pruned: Pruned, setting: Setting) -> None:
        super().__init__(stage, pruned, chance_of(setting, number))
        self._model, self._setting = model, setting
        self._known = setting.couplings(model)
        self._coupled = self._known.matching(layers_of(stage))
        if isinstance(criterion := stage.criterion, schema.PrincipalAxes):
            axes = setting.journal.note(
                "axes", lambda: [_to_axes(model, coupling, criterion, setting) for coupling in self._coupled]
            )
            self._known = setting.couplings(model)
            self._coupled = self._known.matching(axes)
        self._keep = dict(pruned.keep_nodes)
        members = [
            member.tensor for coupling in self._coupled for member in coupling.members if member.role != "follows"
        ]
        self.adjacent = sorted(
            {f"{side}.*" if side else name for side, _, name in (t.rpartition(".") for t in members)}
        )
        self.paths = list(dict.fromkeys([*members, *pruned.keep]))

    @property
    def coupled(self) -> Mapping[Coupling, Tensor]:
        """The nodes in question, with what is kept of them by the latest choice."""
        return {coupling: self._keep[coupling] for coupling in self._coupled}

    @property
    def names(self) -> Mapping[str, Collection[str]]:
        return {names[0]: names for names in names_of(self._known, self._coupled).values()}

    @property
    def layers(self) -> Mapping[str, int]:
        return dict(zip(self.names, (coupling.size for coupling in self._coupled), strict=True))

    def ranked(self) -> Callable[[Mapping[str, float]], dict[str, Tensor]]:
        scores = self._scores()  # each layer by itself, so that they need not be comparable

        def masks(shares: Mapping[str, float]) -> dict[str, Tensor]:
            self._keep = _in_each(self._known, scores, [shares[name] for name in self.names], self._stage, {})
            if self._stage.compensate:
                self._compensate()
            return masks_of(self._model, self._keep)

        return masks

    @property
    def count(self) -> tuple[int, int]:
        kept = self.coupled.values()
        return sum(int((~keep).sum()) for keep in kept), sum(len(keep) for keep in kept)

    @property
    def expected(self) -> int | None:
        stage = self._stage
        if (
            stage.level[0] != "sparsity"
            or stage.multiple_of > 1
            or stage.min_keep
            or stage.scope not in (None, "layer")
        ):
            return None
        shares = dict.fromkeys(self.layers, stage.goes)
        if stage.layers is not None:
            shares = shares_of(stage.layers, self.names)
        return sum(
            min(round(shares[name] * size), size - 1) for name, size in self.layers.items()
        )  # the last one stays

    @property
    def achieved(self) -> float:
        measure, _ = self._stage.level
        if measure == "sparsity":
            return super().achieved
        weights = weights_of(measure, self._known)
        return cost(self._known, self._keep, weights) / cost(self._known, {}, weights)

    def compensate(self, share: float) -> None:
        self._masks(share, {})  # what is chosen stays chosen: the pruner comes to the same
        self._compensate()

    def _compensate(self) -> None:
        readers = {
            layer_of(member.tensor): self._keep[coupling]
            for coupling in self._coupled
            for member in coupling.members
            if member.role == "reads"
        }
        compensate(self._model, readers, scoring_batches(self._setting, COMPENSATION_SAMPLES))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "keep": packed(self._keep)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._keep = unpacked(state["keep"])

    def settle(self) -> None:
        super().settle()
        self._pruned.keep_nodes.update(self._keep)

    def _masks(self, share: float, gone: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._keep |= self._chosen(share)
        masks = masks_of(self._model, dict(self.coupled))
        return {**self._pruned.keep, **with_earlier(masks, self._pruned.keep)}

    def _chosen(self, share: float) -> Keep:
        if share == 0:  # where a ramp begins
            every = {coupling: torch.ones(coupling.size, dtype=torch.bool) for coupling in self._coupled}
            return with_earlier(every, self._keep)
        stage, scores = self._stage, self._scores()
        if stage.scope is not None:
            scores = comparable(scores, stage.criterion, self._keep)
        chosen = choose_within(self._known, scores, stage, share, self._keep)
        self._note_scores(self._groups(scores, chosen), share)
        return chosen

    def _groups(self, scores: Mapping[Coupling, Tensor], chosen: Keep) -> list[Group]:
        """Scores as the choice saw them: what is gone already is out of it."""
        living = {coupling: taken_first(score, self._keep.get(coupling)) for coupling, score in scores.items()}
        if self._stage.scope == "global":
            return [(None, list(living.values()), [chosen[coupling] for coupling in living])]
        return [(coupling.name, [score], [chosen[coupling]]) for coupling, score in living.items()]

    def _scores(self) -> Scores:
        return node_scores(self._model, self._stage.criterion, self._coupled, self._chance, self._setting)


class EvenChoice(NodeChoice):
    """As many as if the scores of all widths were alike: a sketch, where the criterion's own would take too long."""

    def _scores(self) -> Scores:
        return even_scores(self._coupled)


def even_scores(coupled: Iterable[Coupling]) -> Scores:
    return {coupling: torch.linspace(0, 1, coupling.size) for coupling in coupled}


def choose_within(
    known: Couplings, scores: Mapping[Coupling, Tensor], stage: schema.Stage, share: float, earlier: Keep
) -> Keep:
    """`choose_nodes` as the stage has it, at a share of what goes; none of what `earlier` choices took comes back.

    Raises:
        InputError: a budget that cannot be reached.
        TargetError: a score is NaN, or `layers` does not fit.
    """
    if stage.layers is not None:
        names = {found[0]: found for found in names_of(known, scores).values()}
        shares = shares_of(stage.layers, names, share / stage.goes)
        return _in_each(known, scores, list(shares.values()), stage, earlier)
    measure, _ = stage.level
    level = {measure: share if measure == "sparsity" else 1.0 - share}
    return choose_nodes(
        known,
        scores,
        **level,
        ranking=_RANKINGS[stage.scope or "layer"],
        multiple_of=stage.multiple_of,
        min_nodes=stage.min_keep or 1,
        earlier=earlier,
    )


def _in_each(
    known: Couplings, scores: Mapping[Coupling, Tensor], shares: Sequence[float], stage: schema.Stage, earlier: Keep
) -> Keep:
    """As `choose_within`, of each coupling its own share, in the order of `scores`."""
    keep: Keep = {}
    for (coupling, score), share in zip(scores.items(), shares, strict=True):
        keep |= choose_nodes(
            known,
            {coupling: score},
            sparsity=share,
            multiple_of=stage.multiple_of,
            min_nodes=stage.min_keep or 1,
            earlier=earlier,
        )
    return keep


def names_of(known: Couplings, wanted: Iterable[Coupling]) -> dict[Coupling, list[str]]:
    """The layers by which each coupling can be named in a target; the first is the name that it goes by."""
    found: dict[Coupling, list[str]] = {}
    for coupling in wanted:
        layers = dict.fromkeys(layer_of(member.tensor) for member in coupling.members if member.role == "writes")
        found[coupling] = [layer for layer in layers if known.of(layer) == coupling]
    return found


def layers_of(stage: schema.Stage) -> Sequence[str]:
    assert isinstance(stage.target, schema.Nodes)
    return stage.target.nodes


def _to_axes(model: nn.Module, coupling: Coupling, criterion: schema.PrincipalAxes, setting: Setting) -> str:
    """Take apart the layer that reads these nodes; the name of the layer whose nodes are the axes."""
    readers = {layer_of(member.tensor) for member in coupling.members if member.role == "reads"}
    if len(readers) != 1:
        raise TargetError(
            f"{len(readers)} layers read the nodes of {coupling.name!r} ({', '.join(sorted(readers))}); principal_axes "
            "is for nodes that a single Linear reads"
        )
    (reader,) = readers
    found = moments(model, {reader: coupling.size}, scoring_batches(setting, criterion.samples))[reader]
    linear = model.get_submodule(reader)
    assert isinstance(linear, nn.Linear)
    return insert_bottleneck(model, reader, *principal_axes(linear.weight, linear.bias, found))
