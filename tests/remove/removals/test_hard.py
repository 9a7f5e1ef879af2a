"""Hard removal: zero at once, and held there."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn

from compress.remove.pruner import Pruner
from compress.remove.removals import Hard


def train(model, optimizer, steps, pruner=None):
    for _ in range(steps):
        F.mse_loss(model(torch.randn(16, 6)), torch.randn(16, 3)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if pruner is not None:
            pruner.step()


def test_hard_is_gone_at_once_and_held_while_retraining():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    train(model, optimizer, 3)
    pruner = Pruner(model, sparsity=0.5, removal=Hard())
    pruned = model[0].weight_pruned.clone()
    assert pruner.removed
    for _ in range(5):
        assert (model[0].weight[pruned] == 0).all()
        train(model, optimizer, 1, pruner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.finalize()
    assert (model[0].weight[pruned] == 0).all()
