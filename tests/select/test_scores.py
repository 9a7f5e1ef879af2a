import numpy as np
import pytest
import torch

from compress.errors import InputError
from compress.select.criteria.magnitude import magnitude
from compress.select.criteria.taylor import taylor
from compress.select.scores import PIECE, Scores, removed_first


def whole(scores):
    """All pieces laid end to end, each at the place that it says."""
    result = torch.full((scores.numel(),), torch.nan, dtype=scores.dtype)
    for place, piece in scores.pieces():
        result[place] = piece
    return result.view(scores.shape)


@pytest.mark.parametrize("size", [1, PIECE, 2 * PIECE + 3])
def test_pieces_are_the_scores_of_the_whole(size):
    weight, slope = torch.randn(size, requires_grad=True), torch.rand(size)
    gone = torch.rand(size) < 0.5
    scores = Scores(taylor, weight, slope).then(removed_first, gone)
    expected = np.where(gone, -np.inf, np.abs(weight.detach().numpy()) * slope.numpy())
    np.testing.assert_array_equal(whole(scores).numpy(), expected)
    assert all(len(piece) <= PIECE and not piece.requires_grad for _, piece in scores.pieces())


def test_tensors_are_scores_of_their_own():
    held = torch.randn(3, 4, dtype=torch.bfloat16)
    scores = Scores.of(held)
    assert torch.equal(whole(scores), held)
    assert Scores.of(scores) is scores
    assert (scores.shape, scores.dtype, scores.numel()) == ((3, 4), torch.bfloat16, 12)


def test_order_is_that_of_the_entries_and_not_of_the_memory():
    weight = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert torch.equal(whole(Scores(magnitude, weight)), weight.abs())


def test_nothing_is_computed_before_somebody_looks():
    weight = torch.ones(3)
    scores = Scores(magnitude, weight)
    weight.fill_(-2.0)
    assert whole(scores).tolist() == [2.0, 2.0, 2.0]


def test_empty_and_scalar():
    assert list(Scores.of(torch.empty(0, 3)).pieces()) == []
    assert whole(Scores.of(torch.tensor(3.0))).item() == 3.0


def test_shapes_that_differ():
    with pytest.raises(InputError, match=r"tensors of one shape, and not \[\(2, 3\), \(6,\)\]"):
        Scores(taylor, torch.ones(2, 3), torch.ones(6))
