"""The change of the loss to first order, w * g, of single weights and of nodes, whose entries are zeroed together.

Molchanov et al., "Importance estimation for neural network pruning", 2019.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from compress.batches import Pairs
from compress.graph.coupling import Coupling
from compress.select import gradients
from compress.select.members import place_of, readers, writers
from compress.select.scores import Scores
from compress.select.scoring import Scoring
from compress.select.targets import Target
from compress.tasks import Loss

GRADIENT_BATCH = 25
"""Small, because the change of the loss is squared for each batch and not for each sample."""

Statistic = Callable[[nn.Module, Sequence[Tensor], Pairs, Loss], list[Tensor]]


class _Asker(Protocol):
    @property
    def samples(self) -> int | Literal["all"]: ...


def score_weights(
    targets: Sequence[Target], score: Callable[..., Tensor], statistic: Statistic, scoring: Scoring, asker: _Asker
) -> list[Scores]:
    """score(weight, statistic of its gradient) for every entry of the targets as they act now."""
    batches, loss = scoring.batches(asker, asker.samples), scoring.loss(asker)
    with gradients.effective([(target.module, target.name) for target in targets]) as leaves:
        found = statistic(scoring.model, leaves, batches, loss)
    # From the parameters and not the leaves, which are copies where masks are on.
    return [Scores(score, target.parameter, each) for target, each in zip(targets, found, strict=True)]


def score_nodes(coupled: Sequence[Coupling], kind: str, scoring: Scoring, asker: _Asker) -> dict[Coupling, Tensor]:
    """`change_of_loss` when all columns that read a node are zeroed; where nothing reads it with weights, its rows."""
    model = scoring.model
    members = {coupling: readers(coupling) or writers(model, coupling) for coupling in coupled}
    tensors = list(dict.fromkeys(member.tensor for found in members.values() for member in found))
    batches, loss = scoring.batches(asker, asker.samples, GRADIENT_BATCH), scoring.loss(asker)
    with gradients.effective([place_of(model, tensor) for tensor in tensors]) as leaves:
        owned = [
            [(leaves[tensors.index(member.tensor)], member.matrix) for member in found] for found in members.values()
        ]
        scores = change_of_loss(model, owned, batches, loss, kind)
    return dict(zip(members, scores, strict=True))


def change_of_loss(
    model: nn.Module,
    owned: Sequence[Sequence[tuple[Tensor, Callable[[Tensor], Tensor]]]],
    batches: Pairs,
    loss: Loss,
    kind: str,
) -> list[Tensor]:
    """d = sum of w * g over all entries w of a node, which are zeroed together; float64 [nodes] for each group.

    Args:
        owned: for each group of nodes the leaves that hold them (see `gradients`), each with what sorts the entries
            of a tensor of its shape by node: [nodes, entries].
        kind: mean over batches of |d| ("taylor") or d^2 ("taylor_square"), or |mean d| ("snip").

    Raises:
        InputError: no scoring data.
    """
    leaves = list({id(leaf): leaf for group in owned for leaf, _ in group}.values())
    place = {id(leaf): index for index, leaf in enumerate(leaves)}
    sums, count = [torch.zeros(()) for _ in owned], 0
    for slopes in gradients.each(model, leaves, batches, loss):
        count += 1
        for index, group in enumerate(owned):
            changes = [sort(leaf.detach() * slopes[place[id(leaf)]]).double().sum(1) for leaf, sort in group]
            change = torch.stack(changes).sum(0)
            sums[index] = sums[index].to(change) + {"taylor": change.abs(), "taylor_square": change.square()}.get(
                kind, change
            )
    return [total.abs() / count for total in sums]
