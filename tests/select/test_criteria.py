import numpy as np
import pytest
import torch
from torch import nn

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


def test_scaled_magnitude_by_fan_in():
    for module, inputs in (
        (nn.Linear(7, 3), 7),
        (nn.Conv2d(4, 6, (3, 2), groups=2), 2 * 6),
        (nn.ConvTranspose2d(4, 6, (3, 2), groups=2), 2 * 6),
        (nn.ConvTranspose1d(5, 2, 3), 5 * 3),
    ):
        assert criteria.fan_in(module, module.weight) == inputs
        assert criteria.fan_in(module, module.bias) == 1
        expected = np.abs(module.weight.detach().numpy()) * np.sqrt(inputs)
        np.testing.assert_allclose(criteria.scaled_magnitude(module.weight, inputs).numpy(), expected, rtol=1e-6)
        if not isinstance(module, nn.modules.conv._ConvTransposeNd):
            np.testing.assert_allclose(criteria.scaled_magnitude(module.weight).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("weight", [torch.randn(4, 5), torch.randint(-2, 3, (6, 3, 2)).float(), torch.zeros(3)])
def test_lamp_by_its_definition(weight):
    flat = weight.double().numpy().ravel()
    expected = [w**2 / sum(v**2 for v in flat if abs(v) >= abs(w)) if w else 0.0 for w in flat]
    score = criteria.lamp(weight)
    assert score.shape == weight.shape
    np.testing.assert_allclose(score.numpy().ravel(), expected, rtol=1e-12)


def test_norms_of_both_sides():
    first, bias, behind, aside = torch.randn(3, 4), torch.randn(3, 1), torch.randn(3, 5), torch.randn(3, 2)
    incoming, outgoing = np.hstack([first, bias]), np.hstack([behind, aside])
    expected = np.sqrt((incoming**2).sum(1) * (outgoing**2).sum(1))
    found = criteria.norms([first, bias], [behind, aside])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(criteria.norms([3 * first, 3 * bias], [behind / 3, aside / 3]), found)
