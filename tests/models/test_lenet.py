"""The networks of the literature: their sizes are those that its tables state."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from compress import models
from compress.graph.stats import measure


@pytest.mark.parametrize(
    ("build", "weights", "params", "macs"),
    [
        (models.lenet_300_100, 266_200, 266_610, 266_200),
        (models.lenet_5, 430_500, 431_080, 24**2 * 20 * 25 + 8**2 * 50 * 500 + 800 * 500 + 500 * 10),
    ],
)
def test_sizes_are_those_of_the_literature(
    build: Callable[[], nn.Module], weights: int, params: int, macs: int
) -> None:
    model = build()
    found = measure(model, torch.zeros(2, 1, 28, 28))
    assert (found.params, found.macs) == (params, macs)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1) == weights
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("build", [models.lenet_300_100, models.lenet_5])
def test_a_seed_gives_the_same_network(build: Callable[..., nn.Module]) -> None:
    first, same = (build(7, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
    for one, other in zip(first.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)
