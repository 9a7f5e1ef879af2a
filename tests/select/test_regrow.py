import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.select.regrow import returning, share_at


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    share=st.floats(0.01, 0.99),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_the_gone_with_the_steepest_loss_come_back_as_by_sorting(sizes, share, density, seed):
    chance = np.random.default_rng(seed)
    slopes = [chance.integers(-4, 5, size).astype(np.float32) for size in sizes]
    gone = [chance.random(size) < density for size in sizes]
    may = [mask & (chance.random(len(mask)) < 0.8) for mask in gone]
    flat, allowed = np.concatenate(slopes), np.concatenate(may)
    count = round(share * min((~np.concatenate(gone)).sum(), allowed.sum()))
    order = np.argsort(np.where(allowed, -np.abs(flat), np.inf), kind="stable")
    expected = np.isin(np.arange(len(flat)), order[:count])
    found = returning(*([torch.from_numpy(part) for part in parts] for parts in (slopes, gone, may)), share)
    assert [len(mask) for mask in found] == sizes
    np.testing.assert_array_equal(torch.cat(found).numpy(), expected)
    assert not (expected & ~allowed).any()


def test_the_share_falls_by_half_a_cosine():
    assert [share_at(0.3, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.3, 0.15, 0.0])
    assert share_at(0.3, 1.0) == 0.0
