import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress.graph.coupling import Member
from compress.select import scores
from compress.select.node_norms import node_norms, squares_of
from tests.select.test_choose import peak

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    outer=st.integers(1, 3),
    size=st.integers(1, 5),
    inner=st.integers(1, 3),
    before=st.integers(0, 2),
    dim=st.integers(0, 2),
    piece=st.integers(1, 40),
)
def test_sums_of_squares_are_those_of_numpy(dtype, outer, size, inner, before, dim, piece):
    """Whatever lies between the nodes, and however small the pieces are."""
    step = before + size * inner
    shape = [2, 7]
    shape.insert(dim, outer * step)
    tensor = torch.from_numpy(np.random.default_rng(0).normal(size=shape)).to(dtype)
    nodes = np.moveaxis(tensor.double().numpy(), dim, 0).reshape(outer, step, -1)[:, before:]
    expected = (nodes.reshape(outer, size, inner, -1) ** 2).sum((0, 2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "PIECE", piece)
        found = squares_of(Member("w", dim, "reads", size, outer, inner, before, step), tensor)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 7, 33, 65, 130])
def test_equal_nodes_have_equal_sums_wherever_they_are(dim, size):
    torch.manual_seed(0)
    shape = [51, 9]
    shape.insert(dim, 1)
    tensor = torch.randn(shape).repeat_interleave(size, dim)
    found = squares_of(Member("w", dim, "reads", size), tensor)
    assert (found == found[0]).all()


def test_norm_over_several_tensors():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5))
    members = [Member("0.weight", 0, "writes", 3), Member("0.bias", 0, "writes", 3), Member("1.weight", 1, "reads", 3)]
    first, bias, second = model[0].weight, model[0].bias, model[1].weight
    entries = torch.cat([first, bias[:, None], second.T], dim=1).detach().numpy()
    np.testing.assert_allclose(node_norms(model, members).numpy(), np.linalg.norm(entries, axis=1), rtol=1e-6)


@pytest.mark.parametrize("dim", [0, 1])
def test_memory_does_not_grow_with_the_tensor(dim, tmp_path):
    tensor = torch.randn(2000, 2000)
    member = Member("w", dim, "reads", 2000)
    assert peak(lambda: squares_of(member, tensor), tmp_path / "trace.json") < 12 * scores.PIECE
