"""A pruner's arguments, and that a mistake leaves the network as it was; tests/test_api.py holds the whole contract."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from compress.errors import InputError, TargetError
from compress.remove.pruner import Pruner
from compress.remove.removals.soft import Soft
from compress.select.targets import Weights, nodes, weights
from compress.slimming.shrink import slim


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({}, InputError), ({"sparsity": 1.5}, InputError), ({"keep": [torch.ones(2)]}, InputError)],
)
def test_mistakes_leave_the_model_as_it_was(arguments, error):
    model = network()
    with pytest.raises(error):
        Pruner(model, **arguments)
    assert not prune.is_pruned(model)


def test_masks_that_do_not_fit_are_named():
    with pytest.raises(
        TargetError, match=r"the mask for 0\.weight is torch.float32 \(8, 6\); it must be bool \(8, 6\)"
    ):
        Pruner(network(), ["0.weight"], keep=[torch.ones(8, 6)])


class Tied(nn.Module):
    """A language model whose head is its embedding; the stream between them is written twice."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.expand, self.back = nn.Linear(12, 16), nn.Linear(16, 12)
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        stream = self.embed(tokens)
        return self.head(stream + self.back(self.expand(stream).relu()))


@pytest.mark.parametrize("target", [nodes("*"), nodes("embed"), weights("head.weight")])
def test_tied_embeddings_decay_as_the_one_parameter_that_they_are(target):
    torch.manual_seed(0)
    model, tokens = Tied(), torch.randint(0, 20, (4, 6))
    pruner = Pruner(model, target, sparsity=0.5, removal=Soft(steps=4), example=tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    start = model.embed.weight.detach().clone()
    owner = model.head if target == weights("head.weight") else model.embed
    pruned = owner.weight_pruned.clone()
    for step in range(1, 5):
        optimizer.zero_grad()
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        pruner.step()
        assert model.head.weight is model.embed.weight
        if step < 4:
            ratio = model.head.weight[pruned] / start[pruned]
            assert torch.allclose(ratio, ratio[:1])
            assert 0 < ratio[0] < 1
    pruner.finalize()
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.embed.weight == 0, pruned)
    small = slim(model, tokens)
    assert small.head.weight is small.embed.weight
    assert small.embed.weight.shape == (20, 12 if isinstance(target, Weights) else 6)


def test_a_step_that_a_loss_scaler_skips_counts_and_changes_nothing_that_is_kept():
    """As docs/bring-your-own.md says: the loop counts it too, and the removal ends when the loop expects it."""
    model = network()
    pruner = Pruner(model, sparsity=0.5, removal=Soft(5, "linear"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    weight, start = model[0].weight, model[0].weight.detach().clone()
    pruned = model[0].weight_pruned.clone()
    for step in range(1, 6):
        before = weight.detach().clone()
        with torch.autocast("cpu", torch.float16):
            loss = model(torch.randn(4, 6)).square().mean()
        scaler.scale(loss * (torch.inf if step == 3 else 1.0)).backward()
        assert (weight.grad[pruned] == 0).all()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        pruner.step()
        assert torch.equal(weight[~pruned], before[~pruned]) == (step == 3)
        assert torch.equal(weight[pruned], start[pruned] * (1 - step / 5))
    assert scaler.get_scale() == 64.0
    assert pruner.removed
    pruner.finalize()
    assert torch.equal(weight == 0, pruned)
