import torch

from compress.select.criteria.random import random


def test_random_is_seeded_and_of_the_shape():
    first, again, other = (random(torch.ones(50, 2), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (50, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= first.min() < first.max() < 1
