import numpy as np
import torch

from compress.select import criteria


def test_magnitude():
    weight = torch.randn(3, 4, requires_grad=True)
    score = criteria.magnitude(weight)
    np.testing.assert_array_equal(score.numpy(), np.abs(weight.detach().numpy()))
    assert not score.requires_grad


def test_random_is_seeded_and_of_the_shape():
    first, again, other = (
        criteria.random(torch.ones(50, 2), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (50, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= first.min() < first.max() < 1


def test_row_norm_along_either_side():
    weight = torch.randn(3, 4, 2)
    for dim, axes in ((0, (1, 2)), (1, (0, 2))):
        expected = np.sqrt((weight.numpy() ** 2).sum(axis=axes))
        np.testing.assert_allclose(criteria.row_norm(weight, dim).numpy(), expected, rtol=1e-6)
