import numpy as np
import pytest
import torch

from compress.select.choose import choose
from compress.select.criteria.magnitude import magnitude
from compress.select.histogram import BINS, histogram
from compress.select.scores import PIECE, Scores, removed_first


def edges(found):
    space = np.geomspace if found["scale"] == "log" else np.linspace
    return space(found["from"], found["to"], BINS + 1)


def test_counts_are_those_of_numpy():
    torch.manual_seed(0)
    scores = [torch.rand(3, 5), torch.rand(PIECE + 7)]
    keep = choose(scores, 0.3)
    found = histogram(scores, keep)
    together = torch.cat([score.flatten() for score in scores]).double().numpy()
    stays = torch.cat([mask.flatten() for mask in keep]).numpy()
    assert found["scale"] == "linear"
    assert (found["from"], found["to"]) == (0.0, together.max())
    assert found["threshold"] == together[~stays].max() < together[stays].min()
    assert (found["earlier"], sum(found["gone"])) == (0, (~stays).sum())
    # In float32 a score on the border of two bins may fall into either.
    for name, mine in (("kept", together[stays]), ("gone", together[~stays])):
        assert np.abs(np.array(found[name]) - np.histogram(mine, edges(found))[0]).sum() <= 20


def test_scores_of_very_different_size_are_counted_by_their_logarithm():
    score = torch.logspace(-12, 0, 241, dtype=torch.float64)
    score[0] = 0.0
    keep = score > 9e-5  # between two borders
    found = histogram([score], [keep])
    assert (found["scale"], found["from"], found["to"]) == ("log", 1e-8, 1.0)
    assert found["gone"][0] == int((score < 1e-8).sum()) + 4  # all below, and a bin of a fifth of a decade
    assert sum(found["gone"][:20]) == int((~keep).sum())
    assert sum(found["kept"]) == int(keep.sum())
    assert sum(found["kept"][:20]) == 0


def test_what_had_gone_before_is_in_no_bin():
    score = torch.tensor([3.0, 1.0, 2.0, 4.0])
    gone = torch.tensor([True, False, False, False])
    seen = Scores(magnitude, score).then(removed_first, gone)
    found = histogram([seen], [torch.tensor([False, False, True, True])])
    assert found["earlier"] == 1
    assert (sum(found["gone"]), sum(found["kept"])) == (1, 2)
    assert found["threshold"] == 1.0


def test_a_single_score_above_zero():
    score = torch.zeros(100)
    score[7] = 5.0
    found = histogram([score], [score > 0])
    assert (found["scale"], found["from"], found["to"]) == ("log", 0.5, 5.0)
    assert (found["gone"][0], found["kept"][-1]) == (99, 1)


def test_below_zero_and_infinite():
    found = histogram([torch.tensor([-1.0, 0.5, torch.inf])], [torch.tensor([False, True, True])])
    assert (found["from"], found["to"], found["earlier"]) == (-1.0, 0.5, 1)


@pytest.mark.parametrize("score", [[], [2.0, 2.0], [-torch.inf, 1.0]])
def test_nothing_to_see(score):
    assert histogram([torch.tensor(score)], [torch.ones(len(score), dtype=torch.bool)]) is None


def test_without_anything_that_goes_there_is_no_threshold():
    found = histogram([torch.tensor([1.0, 2.0])], [torch.ones(2, dtype=torch.bool)])
    assert "threshold" not in found
