"""One ranking for several selections is that of the criterion itself, computed once."""

import copy

import pytest
import torch
from torch import nn

import compress
from compress.select.criteria import criterion_of
from compress.select.criteria.ranked_once import RankedOnce


@pytest.mark.parametrize("word", ["obs", "norms", "taylor_square", "variance"])
def test_chooses_the_same_and_looks_at_the_samples_once(word: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))
    samples: list[tuple[torch.Tensor, torch.Tensor]] = [(torch.randn(50, 6), torch.arange(50) % 3)]
    seen: list[int] = []

    def batches(size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        seen.append(size)
        return samples

    once = RankedOnce.of(criterion_of(word))
    assert (once.word, once.adds_up, once.per_entry) == (word, criterion_of(word).adds_up, criterion_of(word).per_entry)
    for scope in ("layer", "global"):
        found = []
        for criterion in (once, word):
            pruner = compress.Pruner(
                copy.deepcopy(model),
                compress.nodes("*"),
                params=0.6,
                example=samples[0][0],
                criterion=criterion,
                batches=batches if criterion is once else samples,
                loss=nn.functional.cross_entropy,
                scope=scope,
            )
            found.append(pruner.selection.state_dict()["latest"])
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert len(seen) <= 1


def test_a_criterion_that_changes_the_network_is_left_alone() -> None:
    axes = criterion_of("principal_axes")
    assert RankedOnce.of(axes) is axes
