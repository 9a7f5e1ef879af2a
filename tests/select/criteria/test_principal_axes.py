import pytest
import torch

from compress.select.criteria.principal_axes import principal_axes


def given(bias=True):
    torch.manual_seed(0)
    values = torch.randn(300, 6) @ torch.randn(6, 6) + 2.0
    extended = torch.cat([values, torch.ones(300, 1)], 1).double()
    return values.double(), torch.randn(9, 6), torch.randn(9) if bias else None, extended.T @ extended


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_taken_apart_computes_the_same(bias):
    values, weight, offset, moments = given(bias)
    (axes, shift), (reader, end) = principal_axes(weight, offset, moments)
    found = (values @ axes.T + shift) @ reader.T + end
    expected = torch.nn.functional.linear(values, weight.double(), None if offset is None else offset.double())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_first_axes_are_the_best_bottleneck_of_that_width(width):
    """Against the truncated singular value decomposition of the centred inputs: nothing of that rank comes nearer."""
    values, weight, offset, moments = given()
    (axes, shift), _ = principal_axes(weight, offset, moments)
    code = values @ axes.T + shift
    assert code.mean(0).abs().max() < 1e-9
    left, sizes, right = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    best = (left[:, :width] * sizes[:width]) @ right[:width] + values.mean(0)
    torch.testing.assert_close(code[:, :width] @ axes[:width] + values.mean(0), best)
    spreads = code.square().mean(0)
    assert (spreads[:-1] >= spreads[1:]).all()
