import pytest
import torch

from compress.select.axes import principal_axes


def given(nodes=6, out=9, bias=True):
    torch.manual_seed(0)
    values = torch.randn(300, nodes) @ torch.randn(nodes, nodes) + 2.0
    extended = torch.cat([values, torch.ones(300, 1)], 1).double()
    return values, torch.randn(out, nodes), torch.randn(out) if bias else None, extended.T @ extended


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("out", [4, 6, 9])
def test_the_layer_taken_apart_computes_the_same(bias, out):
    values, weight, offset, moments = given(out=out, bias=bias)
    (axes, shift), (reader, end) = principal_axes(weight, moments, offset)
    assert axes.shape == (min(6, out), 6)
    found = (values.double() @ axes.T + shift) @ reader.T + end
    torch.testing.assert_close(found, torch.nn.functional.linear(values, weight, offset).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_first_axes_are_the_best_bottleneck_of_that_width(width):
    """Against the truncated singular value decomposition of the centred outputs: nothing of that rank comes nearer."""
    values, weight, offset, moments = given()
    (axes, shift), (reader, end) = principal_axes(weight, moments, offset)
    code = values.double() @ axes.T + shift
    assert code.mean(0).abs().max() < 1e-9
    found = code[:, :width] @ reader[:, :width].T + end
    wanted = torch.nn.functional.linear(values, weight, offset).double()
    left, sizes, right = torch.linalg.svd(wanted - wanted.mean(0), full_matrices=False)
    best = (left[:, :width] * sizes[:width]) @ right[:width] + wanted.mean(0)
    torch.testing.assert_close(found, best, rtol=1e-5, atol=1e-5)
    spreads = code.square().mean(0)
    assert (spreads[:-1] >= spreads[1:]).all()
