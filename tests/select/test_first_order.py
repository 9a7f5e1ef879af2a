"""The change of the loss to first order, against the gradient of a factor at all entries of a node."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from compress.errors import InputError
from compress.select.first_order import change_of_loss


def in_batches(inputs, target):
    return list(zip(inputs.split(4), target.split(4), strict=True))


def by_factor(model, weights, inputs, target):
    """The slope of the loss by a factor of each node's columns, which is 1; `weights`: of which layers, by name."""
    factor = torch.ones(4, dtype=torch.float64, requires_grad=True)
    changed = {name: model.get_parameter(name).detach() * factor for name in weights}
    loss = F.mse_loss(functional_call(model, changed, (inputs,)), target)
    return torch.autograd.grad(loss, factor)[0]


class Twice(nn.Module):
    """Two layers read the nodes of `first`."""

    def __init__(self):
        super().__init__()
        self.first, self.one, self.two = nn.Linear(5, 4), nn.Linear(4, 6), nn.Linear(4, 6)
        self.drop = nn.Dropout()

    def forward(self, x):
        nodes = torch.sigmoid(self.first(x))
        return self.drop(self.one(nodes)) * self.two(nodes)


@pytest.mark.parametrize("weights", [["one.weight"], ["one.weight", "two.weight"]])
def test_taylor_is_the_change_by_a_factor_of_all_entries_of_a_node(weights):
    torch.manual_seed(0)
    model = Twice().double().train()
    inputs, target = torch.randn(11, 5, dtype=torch.float64), torch.randn(11, 6, dtype=torch.float64)
    model.eval()
    slopes = torch.stack([by_factor(model, weights, *batch) for batch in in_batches(inputs, target)])
    model.train()
    columns = [(model.get_parameter(name), lambda values: values.T) for name in weights]
    rows = [(model.first.bias, lambda values: values[:, None])]
    expected = {"taylor": slopes.abs().mean(0), "taylor_square": slopes.square().mean(0), "snip": slopes.mean(0).abs()}
    for kind, value in expected.items():
        found, other = change_of_loss(model, [columns, rows], in_batches(inputs, target), F.mse_loss, kind)
        torch.testing.assert_close(found, value)
        assert other.shape == (4,)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_taylor_without_data():
    model = Twice()
    with pytest.raises(InputError, match="no scoring data"):
        change_of_loss(model, [[(model.one.weight, torch.t)]], [], F.mse_loss, "taylor")
