import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.graph.rotation import Gain, Rotation
from compress.slimming.rotate import changed, fold_gains, rotate

ROTATION = Rotation(
    6,
    {"0.weight": 0, "0.bias": 0, "2.weight": 1},
    {"2.weight": Gain("1.weight")},
    ("2",),
)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 3)).double()
    nn.init.normal_(model[1].weight)
    return model


def turn() -> Tensor:
    return torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]


def test_the_rotated_network_computes_the_same():
    model, inputs = network(), torch.randn(50, 5, dtype=torch.float64)
    dense = copy.deepcopy(model)
    fold_gains(model, ROTATION)
    torch.testing.assert_close(model(inputs), dense(inputs), rtol=1e-13, atol=1e-13)
    rotate(model, ROTATION, turn())
    torch.testing.assert_close(model(inputs), dense(inputs), rtol=1e-13, atol=1e-13)


def test_against_a_rotation_by_hand():
    model, axes = network(), turn()
    dense = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    fold_gains(model, ROTATION)
    rotate(model, ROTATION, axes)
    q = axes.numpy()
    by_hand = {
        "0.weight": q.T @ dense["0.weight"],
        "0.bias": dense["0.bias"] @ q,
        "1.weight": np.ones(6),
        "2.weight": dense["2.weight"] @ np.diag(dense["1.weight"]) @ q,
        "2.bias": dense["2.bias"],
    }
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value.numpy(), by_hand[name], rtol=1e-13, atol=1e-13)
    changes = {name for name, value in model.state_dict().items() if not np.array_equal(value.numpy(), dense[name])}
    assert changes == set(changed(ROTATION))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parameters_keep_their_dtype(dtype):
    model = network().to(dtype)
    fold_gains(model, ROTATION)
    rotate(model, ROTATION, turn())
    assert {value.dtype for value in model.state_dict().values()} == {dtype}


def test_a_gain_of_one_plus_the_weight_becomes_one():
    model = network()
    gain = 1 + model[1].weight.detach()
    expected = model[2].weight.detach() * gain
    fold_gains(model, Rotation(6, ROTATION.turned, {"2.weight": Gain("1.weight", 1.0)}, ("2",)))
    torch.testing.assert_close(model[2].weight.detach(), expected)
    assert (model[1].weight == 0).all()
