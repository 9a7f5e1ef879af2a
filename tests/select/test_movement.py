import copy
import pickle

import torch
import torch.nn.functional as F
from torch import nn

from compress.remove import decay
from compress.remove.masks import effective, watch
from compress.remove.pruner import Pruner
from compress.remove.soft import Soft
from compress.select.movement import Movement


def test_the_score_is_the_sum_of_minus_weight_times_gradient_of_what_acts():
    """Against a plain network that has the masked weights, step by step."""
    torch.manual_seed(0)
    model, plain = nn.Linear(6, 4), nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, sparsity=0.5, removal=Soft(decay.over(4, "linear")))
    movement = Movement(model.weight)
    watch(model, "weight", movement)
    expected = torch.zeros(4, 6)
    for _ in range(6):
        inputs, wanted = torch.randn(8, 6), torch.randn(8, 4)
        plain.load_state_dict({"weight": model.weight, "bias": model.bias})
        plain.zero_grad()
        F.mse_loss(plain(inputs), wanted).backward()
        expected -= plain.weight.detach() * plain.weight.grad
        F.mse_loss(model(inputs), wanted).backward()
        with torch.no_grad():
            model(inputs)
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    torch.testing.assert_close(movement.score, expected)
    assert expected[model.weight_pruned].any()


def test_scoring_passes_are_no_movement():
    model = nn.Linear(6, 4)
    Pruner(model, sparsity=0.5, removal=Soft(decay.over(4, "linear")))
    movement = Movement(model.weight)
    watch(model, "weight", movement)
    with effective([(model, "weight")]) as leaves:
        torch.autograd.grad(model(torch.randn(3, 6)).sum(), leaves)
    assert (movement.score == 0).all()


def test_a_watched_module_can_be_copied():
    model = nn.Linear(6, 4)
    Pruner(model, sparsity=0.5, removal=Soft(decay.over(4, "linear")))
    movement = Movement(model.weight)
    watch(model, "weight", movement)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other(torch.randn(3, 6)).sum().backward()
    assert (movement.score == 0).all()  # each copy has a watcher of its own
