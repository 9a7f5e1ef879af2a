"""N:M patterns against brute force in numpy, through every removal."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import compress
from compress.select.pattern import Pattern

REMOVALS = (
    compress.Hard(),
    compress.Soft(steps=3),
    compress.Gradual(steps=4, every=1),
    compress.GradualSoft(steps=6, every=1),
    compress.SFP(steps=4, every=1),
    compress.SRFP(steps=4, every=1),
    compress.GReg(steps=4),
)


def by_hand(scores: NDArray[np.float32], n: int, m: int, dim: int) -> NDArray[np.bool_]:
    """Mark, in each group of m along `dim`, all but the n largest; of equals the first."""
    marked = np.zeros(scores.shape, dtype=bool)
    others = [range(size) if place != dim else [slice(None)] for place, size in enumerate(scores.shape)]
    for place in product(*others):
        row, mark = scores[place], marked[place]
        for start in range(0, len(row), m):
            group = row[start : start + m]
            order = sorted(range(len(group)), key=lambda at, group=group: (group[at], at))
            for at in order[: max(0, len(group) - n)]:
                mark[start + at] = True
    return marked


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, int, int, int]:
    m = draw(st.integers(2, 9))
    n = draw(st.integers(1, m - 1))
    shape = draw(st.lists(st.integers(1, 11), min_size=2, max_size=4))
    few = draw(st.booleans())  # so that there are ties
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(-2 if few else -9999, 3 if few else 9999, shape)
    return torch.from_numpy(values.astype(np.float32)), n, m, draw(st.integers(0, len(shape) - 1))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_exactly_the_lowest_of_each_group(case: tuple[Tensor, int, int, int]) -> None:
    scores, n, m, dim = case
    pattern, found = Pattern(n, m), Pattern(n, m).pruned(scores, dim)
    assert np.array_equal(found.numpy(), by_hand(scores.numpy(), n, m, dim))
    assert int(found.sum()) == pattern.count(tuple(scores.shape), dim)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(6, 5, 3), nn.Tanh(), nn.ConvTranspose2d(5, 3, 2), nn.Flatten(), nn.Linear(3 * 7 * 7, 4)
    )


DIMS = {"0.weight": 1, "2.weight": 0, "4.weight": 1}


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.word)
def test_every_removal_ends_with_the_pattern(removal: compress.Removal) -> None:
    model = network()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner = compress.Pruner(model, "*", scope={"n": 2, "m": 4}, removal=removal)
    for _ in range(removal.length + 1):
        model(torch.randn(4, 6, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    pruner.finalize()
    for name, dim in DIMS.items():
        weight = model.get_parameter(name).detach()
        kept = (weight != 0).numpy()
        assert int((~kept).sum()) == Pattern(2, 4).count(tuple(weight.shape), dim)
        assert not (by_hand(kept.astype(np.float32), 2, 4, dim) & kept).any(), name
        if not removal.length:
            assert np.array_equal(~kept, by_hand(start[name].abs().numpy(), 2, 4, dim))
    assert pruner.selection.count[0] == pruner.selection.expected


CRITERIA = ("magnitude", "random", "scaled_magnitude", "lamp", "taylor", "snip", "obd")


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_of_weights(criterion: str) -> None:
    model, data = network(), [(torch.randn(8, 6, 8, 8), torch.randn(8, 4))]
    pruner = compress.Pruner(
        model, "*", scope={"n": 1, "m": 4}, criterion=criterion, batches=data, loss=nn.functional.mse_loss
    )
    pruner.finalize()
    for name, dim in DIMS.items():
        weight = model.get_parameter(name)
        assert int((weight == 0).sum()) == Pattern(1, 4).count(tuple(weight.shape), dim)


def test_a_growing_set_takes_the_lowest_of_the_final_one() -> None:
    model = network()
    scores = model[4].weight.detach().abs()
    final = by_hand(scores.numpy(), 2, 4, 1)
    pruner = compress.Pruner(model, "4.weight", scope={"n": 2, "m": 4}, removal=compress.Gradual(steps=8, every=1))
    pruner.step()
    mask = model[4].weight_mask
    assert 0 < int((mask == 0).sum()) < final.sum()
    largest = scores[(mask == 0)].max()
    assert largest < scores[(mask != 0) & torch.from_numpy(final)].min()
    assert not ((mask == 0).numpy() & ~final).any()


def test_what_is_pruned_earlier_counts() -> None:
    model = network()
    first = compress.Pruner(model, "4.weight", sparsity=0.6)
    first.finalize()
    before = model[4].weight.detach().clone()
    second = compress.Pruner(model, "4.weight", scope={"n": 2, "m": 4}, earlier=first)
    second.finalize()
    expected = by_hand(np.where(before == 0, -np.inf, before.abs()), 2, 4, 1) | (before == 0).numpy()
    assert np.array_equal((model[4].weight == 0).numpy(), expected)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"sparsity": 0.9}, "prunes 0.5 of its weights, and sparsity is 0.9; leave sparsity out"),
        ({"min_keep": 2}, "leave min_keep out"),
        ({"layers": {"*": 0.5}}, "keep one of the two"),
        ({"scope": {"n": 4, "m": 4}}, "keep fewer than there are"),
        ({"scope": {"n": 2}}, "found the keys n; expected n and m"),
        ({"scope": {"n": 2.5, "m": 4}}, "found 2.5; expected a whole number"),
        ({"targets": compress.nodes("*"), "example": torch.randn(2, 6, 8, 8)}, "is for weights"),
        ({"targets": compress.weights("*", bias=True)}, "no input dimension"),
        ({"keep": []}, "keep is the choice itself"),
    ],
)
def test_what_cannot_be(how: dict[str, Any], said: str) -> None:
    with pytest.raises((compress.InputError, compress.TargetError), match=said):
        compress.Pruner(network(), **({"targets": "*", "scope": {"n": 2, "m": 4}} | how))


def test_a_sparsity_that_says_the_same() -> None:
    assert compress.Pruner(network(), "*", scope={"n": 2, "m": 4}, sparsity=0.5).selection.asked == 0.5
