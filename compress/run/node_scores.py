"""A recipe's criterion for nodes as scores: of every node of every coupling, over all members combined."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compress import tasks
from compress.errors import TargetError
from compress.graph.coupling import Coupling, Member
from compress.graph.flow import layer_of
from compress.recipe import schema
from compress.remove.masks import effective
from compress.run.choice import scoring_batches
from compress.run.setting import Setting
from compress.select import criteria, nodes
from compress.select.saliency import skeletonization

Scores = dict[Coupling, Tensor]

GRADIENT_BATCH = 25
"""Small, because the change of the loss is squared for each batch and not for each sample."""


def node_scores(
    model: nn.Module,
    criterion: schema.AnyCriterion,
    coupled: Sequence[Coupling],
    chance: torch.Generator,
    setting: Setting,
) -> Scores:
    """A score for every node, larger = keep.

    Raises:
        TargetError: a layer whose nodes the criterion cannot see.
    """
    match criterion:
        case schema.Random():
            return {coupling: torch.rand(coupling.size, generator=chance) for coupling in coupled}
        case schema.PrincipalAxes():  # the widest axis is the first node
            return {coupling: torch.arange(coupling.size, 0, -1.0) for coupling in coupled}
        case schema.Norms():
            return {coupling: _norms(model, coupling) for coupling in coupled}
        case schema.Gradient():
            return _taylor(model, coupled, criterion, setting)
        case schema.Skeletonization():
            return _saliency(model, coupled, criterion, setting)
        case schema.Variance() | schema.Ablation():
            return _watched(model, coupled, criterion, setting)
        case _:
            return {coupling: _row_norms(model, coupling) for coupling in coupled}


def comparable(scores: Scores, criterion: schema.AnyCriterion, keep: Mapping[Coupling, Tensor]) -> Scores:
    """Scores of different couplings on one scale.

    What is said in terms of the loss is on one already. Norms hang on how many entries a node has, so they are taken
    relative to the mean of the nodes of their coupling that are still there.
    """
    if not isinstance(criterion, schema.Magnitude | schema.Norms):
        return scores
    return {coupling: _relative(score, keep.get(coupling)) for coupling, score in scores.items()}


def _relative(score: Tensor, keep: Tensor | None) -> Tensor:
    mean = (score if keep is None else score[keep.to(score.device)]).mean()
    return score / mean if mean > 0 else score  # all of them are zero


def _row_norms(model: nn.Module, coupling: Coupling) -> Tensor:
    """Norm of each node's incoming weights, in all layers that compute it."""
    rows = [member.matrix(_values(model, member)) for member in _writers(model, coupling)]
    return criteria.row_norm(torch.cat(rows, dim=1))


def _norms(model: nn.Module, coupling: Coupling) -> Tensor:
    """Norm of all rows and biases of each node times norm of all its columns, if it has any."""
    sides: dict[str, list[Tensor]] = {"writes": [], "reads": [], "follows": []}
    for member in coupling.members:
        sides[member.role].append(member.matrix(_values(model, member)))
    if not sides["reads"]:  # summed over without weights, as queries and keys are
        return criteria.row_norm(torch.cat(sides["writes"], dim=1))
    return criteria.norms(sides["writes"], sides["reads"])


def _taylor(model: nn.Module, coupled: Sequence[Coupling], criterion: schema.Gradient, setting: Setting) -> Scores:
    """The change of the loss, to first order, when all columns that read a node vanish; see `criteria.taylor`."""
    members = {coupling: _readers(coupling) or _writers(model, coupling) for coupling in coupled}
    tensors = list(dict.fromkeys(member.tensor for found in members.values() for member in found))
    batches = scoring_batches(setting, criterion.samples, GRADIENT_BATCH)
    with effective([_place(model, tensor) for tensor in tensors]) as leaves:
        owned = [
            [(leaves[tensors.index(member.tensor)], member.matrix) for member in found] for found in members.values()
        ]
        found = nodes.taylor(model, owned, batches, tasks.loss(setting.task), criterion.kind)
    return dict(zip(members, found, strict=True))


def _saliency(
    model: nn.Module, coupled: Sequence[Coupling], criterion: schema.Skeletonization, setting: Setting
) -> Scores:
    """Added up over all layers that compute a node, and over the outputs that are its (before an Unflatten)."""
    writers = {coupling: _writers(model, coupling) for coupling in coupled}
    layers = list(dict.fromkeys(layer_of(member.tensor) for found in writers.values() for member in found))
    batches = scoring_batches(setting, criterion.samples)
    loss = tasks.loss(setting.task)
    found = skeletonization(model, layers, batches, loss, error=criterion.error, reduce=criterion.reduce)
    return {
        coupling: torch.stack([member.per_node(found[layer_of(member.tensor)]) for member in members]).sum(0)
        for coupling, members in writers.items()
    }


def _watched(
    model: nn.Module, coupled: Sequence[Coupling], criterion: schema.Variance | schema.Ablation, setting: Setting
) -> Scores:
    taps = {str(index): _taps(model, coupling) for index, coupling in enumerate(coupled)}
    batches = scoring_batches(setting, criterion.samples)
    if isinstance(criterion, schema.Ablation):
        found = nodes.ablation(model, taps, batches, tasks.loss(setting.task))
    else:
        found = nodes.variance(model, {index: places[0] for index, places in taps.items()}, batches)
    return dict(zip(coupled, found.values(), strict=True))


def _taps(model: nn.Module, coupling: Coupling) -> list[nodes.Tap]:
    """All layers that read the nodes, which is behind the activation function; or else the output of a writer."""
    readers = _readers(coupling)
    modules = [model.get_submodule(layer_of(member.tensor)) for member in readers]
    if readers and all(_is_watched(module) for module in modules):
        return [nodes.Tap(layer_of(member.tensor), "input", _owner(model, member)) for member in readers]
    writer = _writers(model, coupling)[0]
    return [nodes.Tap(layer_of(writer.tensor), "output", _owner(model, writer))]


def _is_watched(module: nn.Module) -> bool:
    """MultiheadAttention reads the weights of its out_proj without calling it."""
    called = not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return called and isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))


def _owner(model: nn.Module, member: Member) -> Tensor:
    """The node that each feature which the member's layer reads, or writes, belongs to.

    Raises:
        TargetError: some belong to nodes of others, or the layer is none that shows features.
    """
    name, side = layer_of(member.tensor), "in" if member.role == "reads" else "out"
    module = model.get_submodule(name)
    features = getattr(module, f"{side}_features", getattr(module, f"{side}_channels", None))
    if features != member.outer * member.size * member.inner:
        raise TargetError(
            f"what {'goes into' if side == 'in' else 'comes out of'} {name!r} is not just the nodes in question, which "
            "cannot be watched there one by one; use the criterion magnitude, norms or taylor"
        )
    every = torch.arange(member.size)[None, :, None]
    return every.expand(member.outer, member.size, member.inner).flatten()


def _readers(coupling: Coupling) -> list[Member]:
    return [member for member in coupling.members if member.role == "reads"]


def _writers(model: nn.Module, coupling: Coupling) -> list[Member]:
    """Members whose rows compute the nodes; biases, scales and shifts only where there is nothing else."""
    writers = [member for member in coupling.members if member.role == "writes"]
    return [member for member in writers if _values(model, member).dim() > 1] or writers


def _values(model: nn.Module, member: Member) -> Tensor:
    module, name = _place(model, member.tensor)
    return getattr(module, name).detach()  # type: ignore[no-any-return]  # under a mask it is no parameter


def _place(model: nn.Module, tensor: str) -> tuple[nn.Module, str]:
    path, _, name = tensor.rpartition(".")
    return model.get_submodule(path), name
