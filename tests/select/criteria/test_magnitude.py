import numpy as np
import torch

from compress.select.criteria.magnitude import magnitude


def test_magnitude():
    weight = torch.randn(3, 4, requires_grad=True)
    score = magnitude(weight)
    np.testing.assert_array_equal(score.numpy(), np.abs(weight.detach().numpy()))
    assert not score.requires_grad
