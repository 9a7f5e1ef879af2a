import numpy as np
import torch

from compress.select.criteria.magnitude import magnitude, row_norm


def test_magnitude():
    weight = torch.randn(3, 4, requires_grad=True)
    score = magnitude(weight)
    np.testing.assert_array_equal(score.numpy(), np.abs(weight.detach().numpy()))
    assert not score.requires_grad


def test_row_norm_along_either_side():
    weight = torch.randn(3, 4, 2)
    for dim, axes in ((0, (1, 2)), (1, (0, 2))):
        expected = np.sqrt((weight.numpy() ** 2).sum(axis=axes))
        np.testing.assert_allclose(row_norm(weight, dim).numpy(), expected, rtol=1e-6)
