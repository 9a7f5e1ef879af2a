"""Variance against numpy, ablation against zeroing the weights by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.errors import InputError, TargetError
from compress.select.activations import Tap, ablation, variance


def dense():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 6)).double().train()
    inputs, target = torch.randn(11, 5, dtype=torch.float64), torch.randn(11, 6, dtype=torch.float64)
    return model, inputs, target, {"0": Tap("2", "input", torch.arange(4))}


def convolutional():
    """Three channels of 2 x 2 pixels, which the Linear sees as twelve features."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 4))
    model = nn.Sequential(*layers).double().train()
    inputs, target = torch.randn(11, 2, 4, 4, dtype=torch.float64), torch.randint(0, 4, (11,))
    return model, inputs, target, {"0": Tap("3", "input", torch.arange(3).repeat_interleave(4))}


def in_batches(inputs, target):
    return list(zip(inputs.split(4), target.split(4), strict=True))


@pytest.mark.parametrize(("make", "cut"), [(dense, 2), (convolutional, 2)])
def test_variance_of_what_the_reader_sees(make, cut):
    model, inputs, target, taps = make()
    values = model[:cut](inputs).detach().numpy()
    expected = values.var(axis=0)
    expected = expected.mean(axis=(1, 2)) if expected.ndim == 3 else expected
    found = variance(model, taps, in_batches(inputs, target))["0"]
    torch.testing.assert_close(found, torch.from_numpy(expected))
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_variance_of_a_layers_own_output_and_of_a_convolutions_input():
    model, inputs, target, _ = convolutional()
    found = variance(
        model,
        {"in": Tap("0", "input", torch.arange(2)), "out": Tap("0", "output", torch.arange(3))},
        in_batches(inputs, target),
    )
    output = model[0](inputs).detach().numpy()
    torch.testing.assert_close(found["out"], torch.from_numpy(output.var(axis=0).mean(axis=(1, 2))))
    torch.testing.assert_close(found["in"], torch.from_numpy(inputs.numpy().var(axis=0).mean(axis=(1, 2))))


@pytest.mark.parametrize(("make", "loss"), [(dense, F.mse_loss), (convolutional, F.cross_entropy)])
def test_ablation_is_what_removal_costs(make, loss):
    model, inputs, target, taps = make()
    found = ablation(model, {name: [tap] for name, tap in taps.items()}, in_batches(inputs, target), loss)["0"]
    expected = []
    for node in range(taps["0"].nodes):
        without = copy.deepcopy(model)
        with torch.no_grad():
            without[0].weight[node] = 0
            without[0].bias[node] = 0
            without[-1].weight[:, taps["0"].owner == node] = 0
        expected.append((loss(without(inputs), target) - loss(model(inputs), target)).item())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert model.training


def test_mistakes():
    model, inputs, target, taps = dense()
    with pytest.raises(InputError, match="no scoring data"):
        variance(model, taps, [])
    with pytest.raises(InputError, match="no scoring data"):
        ablation(model, {"0": [taps["0"]]}, [], F.mse_loss)
    model.add_module("idle", nn.Linear(5, 5))
    model.forward = lambda x: x
    with pytest.raises(TargetError, match="'idle' is not used in the forward pass"):
        ablation(model, {"0": [Tap("idle", "input", torch.arange(5))]}, [(inputs, inputs)], F.mse_loss)
    with pytest.raises(TargetError, match="'idle' is not used in the forward pass"):
        variance(model, {"0": Tap("idle", "input", torch.arange(5))}, [(inputs, target)])
