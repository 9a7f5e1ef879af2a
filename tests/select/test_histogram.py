import numpy as np
import pytest
import torch

from compress.select.choose import choose
from compress.select.criteria.magnitude import magnitude
from compress.select.histogram import BINS, SAMPLE, histogram
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_shares_of_a_sample_are_those_of_all_within_the_stated_error(dtype):
    torch.manual_seed(0)
    # A pattern of nine, of which any regular ninth would only see one.
    many = torch.rand(100_000, 9) * torch.arange(1, 10)
    scores = [many.to(dtype), torch.rand(SAMPLE).to(dtype) * 4, torch.rand(3).to(dtype)]
    keep = choose(scores, 0.4)
    found = histogram(scores, keep)
    together = torch.cat([score.flatten() for score in scores]).double().numpy()
    stays = torch.cat([mask.flatten() for mask in keep]).numpy()
    counted = sum(found["kept"]) + sum(found["gone"])
    assert found["sampled_from"] == len(together)
    assert abs(counted - SAMPLE) <= len(scores)
    assert found["from"] == 0.0
    assert 0.999 * together.max() <= found["to"] <= together.max()
    assert 0 <= together[~stays].max() - found["threshold"] < 1e-3
    for name, mine in (("kept", together[stays]), ("gone", together[~stays])):
        shares = np.histogram(mine, edges(found))[0] / len(together)
        assert np.abs(np.array(found[name]) / counted - shares).max() < 4 * 0.001


def test_of_a_sample_those_pruned_earlier_are_counted_too():
    score, gone = torch.rand(4 * SAMPLE), torch.arange(4 * SAMPLE) % 4 == 0
    found = histogram([Scores(magnitude, score).then(removed_first, gone)], [~gone])
    assert sum(found["kept"]) + sum(found["gone"]) + found["earlier"] == SAMPLE
    assert abs(found["earlier"] / SAMPLE - 0.25) < 4 * 0.001


def test_up_to_the_size_of_a_sample_all_are_counted():
    found = histogram([torch.rand(SAMPLE)], [torch.ones(SAMPLE, dtype=torch.bool)])
    assert "sampled_from" not in found
    assert sum(found["kept"]) == SAMPLE
