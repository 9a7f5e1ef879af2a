"""Probes against sets of codes whose classes can, or cannot, be told by a line."""

import pytest
import torch

from compress.errors import InputError
from compress.train.probes import Codes, chance, probe

TRUTH = torch.arange(2000) % 2
NOISE = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))


def codes(values: torch.Tensor, half: int) -> Codes:
    """The first or second half of the samples."""
    rows = slice(1000 * half, 1000 * (half + 1))
    return Codes(values[rows], {"truth": TRUTH[rows]})


def accuracies(values: torch.Tensor) -> tuple[float, float]:
    """Of a linear probe and one with a hidden layer."""
    train, test = codes(values, 0), codes(values, 1)
    return probe(train, test, "truth"), probe(train, test, "truth", hidden=32)


def test_a_linear_probe_finds_what_a_line_separates_however_small_its_scale() -> None:
    linear, two_layer = accuracies(torch.cat([1e-4 * (TRUTH[:, None] + 0.1 * NOISE[:, :1]), NOISE], 1))
    assert linear > 0.99
    assert two_layer > 0.99


def test_only_a_hidden_layer_finds_the_sign_of_a_product() -> None:
    one = torch.where(NOISE[:, 0] > 0, 1.0, -1.0)
    linear, two_layer = accuracies(torch.stack([one, one * (2 * TRUTH - 1)], 1) + 0.1 * NOISE[:, :2])
    assert linear < 0.6
    assert two_layer > 0.99


def test_neither_finds_anything_in_noise() -> None:
    linear, two_layer = accuracies(NOISE)
    assert abs(linear - 0.5) < 0.05
    assert abs(two_layer - 0.5) < 0.05


def test_the_same_seed_gives_the_same_figure_and_leaves_the_random_numbers_alone() -> None:
    train, test = codes(NOISE, 0), codes(NOISE, 1)
    before = torch.get_rng_state()
    found = [probe(train, test, "truth", hidden=8, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1] != found[2]


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    assert chance(torch.tensor([2, 0, 2, 2])) == 0.75


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"codes: found the shape \[4\]; expected \[N, nodes\]"):
        Codes(torch.zeros(4), {})
    with pytest.raises(InputError, match=r"'y' has the shape \[3\]; expected one class for each of 4 samples"):
        Codes(torch.zeros(4, 2), {"y": torch.zeros(3).long()})
    with pytest.raises(InputError, match="attribute: found 'tint'; the codes have truth"):
        probe(codes(NOISE, 0), codes(NOISE, 1), "tint")
    with pytest.raises(InputError, match="test: found 2 nodes; the training codes have 3"):
        probe(codes(NOISE, 0), codes(NOISE[:, :2], 1), "truth")
