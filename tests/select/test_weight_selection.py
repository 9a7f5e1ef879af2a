"""Regrowth during a gradual removal; the other choices of weights are tested with the stages of recipes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.sources import from_npz
from compress.remove.pruner import Pruner
from compress.remove.removals import Gradual, GradualSoft, Removal
from compress.remove.remover import Remover
from compress.select.pruned import Pruned
from compress.select.regrow import Regrowth
from compress.select.selections import selection_of

NAMES = ["1.weight", "3.weight"]
RAMP, EVERY, SHARE, SAMPLES = 12, 3, 0.5, 30


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 36), nn.Unflatten(1, (1, 6, 6)))


Pairs = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


@pytest.fixture
def pairs(npz: Path) -> Pairs:
    """Batches of (normalised images, images), of the size that is asked for."""
    data = from_npz(npz)
    return lambda size: data.batches("train", size, "reconstruct")()


def words(pairs: Pairs, **changes: Any) -> dict[str, Any]:
    regrow = Regrowth(share=SHARE, samples=SAMPLES)
    return {"sparsity": 0.75, "regrow": regrow, "batches": pairs, "loss": F.mse_loss} | changes


@torch.enable_grad()
def slopes_by_hand(weights: Sequence[Tensor], model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Of a plain network with the weights that act now."""
    plain = network()
    for layer in (1, 3):
        plain[layer].bias.data.copy_(model[layer].bias)
    for layer, weight in zip((1, 3), weights, strict=True):
        plain[layer].weight.data.copy_(weight)
    (plain(images) - targets).square().mean().backward()
    return torch.cat([plain[layer].weight.grad.flatten() for layer in (1, 3)])


def watched(
    model: nn.Module, pruned: Pruned, pairs: Pairs, cohort: int, look: Callable[..., None]
) -> Iterator[Remover]:
    """Train along a ramp, and `look` at (sparsity, weights, gone, kept) at every choice."""
    choice = selection_of(model, "*", **words(pairs), earlier=pruned)

    def chooser(sparsity: float, gone: Sequence[Tensor]) -> list[Tensor]:
        weights = [model[layer].weight.detach().clone() for layer in (1, 3)]
        kept = choice(sparsity, gone)
        look(sparsity, weights, torch.cat([mask.flatten() for mask in gone]), torch.cat([k.flatten() for k in kept]))
        return kept

    soft = GradualSoft(steps=RAMP + cohort, every=EVERY, cohort=cohort or 1)
    removal = soft if cohort else Gradual(steps=RAMP, every=EVERY)
    pruner = Remover(model, NAMES, chooser, 0.75, removal)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    images, targets = next(iter(pairs(SAMPLES)))
    for _ in range(removal.length):
        (model(images) - targets).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        yield pruner


@pytest.mark.parametrize("cohort", [0, 2])
def test_the_gone_with_the_steepest_loss_come_back_at_zero_and_others_go(pairs: Pairs, cohort: int) -> None:
    """Every choice against a sort by hand, and a plain network's gradient."""
    model, seen, came_back = network(), [], torch.zeros(576, dtype=torch.bool)

    def look(sparsity: float, weights: Sequence[Tensor], gone: Tensor, kept: Tensor) -> None:
        nonlocal came_back
        seen.append(sparsity)
        time = (0, 3, 6, 9, 12, 12)[len(seen) - 1]
        share = SHARE * (1 + np.cos(np.pi * time / RAMP)) / 2
        slopes = slopes_by_hand(weights, model, *next(iter(pairs(SAMPLES)))).abs()
        count = round(share * min(int(gone.sum()), int((~gone).sum())))
        came_back = torch.zeros_like(gone)
        came_back[torch.where(gone, slopes, -1.0).argsort(descending=True)[:count]] = True
        rank = torch.cat([weight.flatten() for weight in weights]).abs()
        rank[gone], rank[came_back] = -1.0, torch.inf
        expected = torch.ones_like(gone)
        expected[rank.argsort(stable=True)[: round(sparsity * 576)]] = False
        assert torch.equal(kept, expected)
        assert kept[came_back].all()

    returns = 0
    for pruner in watched(model, Pruned(), pairs, cohort, look):
        act = torch.cat([model[layer].weight.flatten() for layer in (1, 3)])
        if pruner.steps_done % EVERY == 0:
            returns += int(came_back.sum())
            assert (act[came_back] == 0).all()
            assert not came_back.any() or pruner.steps_done < RAMP
        if cohort == 0:
            assert int((~torch.cat([model[layer].weight_mask.flatten() > 0 for layer in (1, 3)])).sum()) == round(
                seen[-1] * 576
            )
    assert returns > 20
    pruner.finalize()
    assert sum(int((model[layer].weight == 0).sum()) for layer in (1, 3)) == 432


def test_what_an_earlier_stage_took_never_comes_back(pairs: Pairs) -> None:
    model = network()
    first = Pruner(model, sparsity=0.4)
    first.finalize()
    pruned = first.pruned
    earlier = torch.cat([pruned.keep[name].flatten() for name in NAMES])
    returned = 0

    def look(sparsity: float, weights: Sequence[Tensor], gone: Tensor, kept: Tensor) -> None:
        nonlocal returned
        returned += int((kept & gone).sum())
        assert not (kept & ~earlier).any()
        assert (torch.cat([weight.flatten() for weight in weights])[~earlier] == 0).all()

    *_, pruner = watched(model, pruned, pairs, 0, look)
    assert returned > 5
    pruner.finalize()
    assert sum(int((model[layer].weight == 0).sum()) for layer in (1, 3)) == 432


def trained(model: nn.Module, pruner: Pruner, pairs: Pairs) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    images, targets = next(iter(pairs(SAMPLES)))
    for _ in range(pruner.removal.length):
        F.mse_loss(model(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    pruner.finalize()


@pytest.mark.parametrize("removal", [Gradual(steps=15, every=2), GradualSoft(steps=15, every=2)])
@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
@pytest.mark.parametrize("criterion", ["magnitude", "lamp"])
def test_as_many_go_as_without_regrowth(pairs: Pairs, removal: Removal, scope: str, criterion: str) -> None:
    model = network()
    pruner = Pruner(model, removal=removal, criterion=criterion, scope=scope, min_keep=20, **words(pairs))
    trained(model, pruner, pairs)
    zeros = [int((model.get_parameter(name) == 0).sum()) for name in NAMES]
    assert sum(layer.pruned for layer in pruner.layers()) == sum(zeros) == 432
    assert max(zeros) <= 288 - 20
    if scope != "global":
        assert zeros == [216, 216]


def test_nothing_is_regrown_where_nothing_goes(pairs: Pairs) -> None:
    model = network()
    pruner = Pruner(model, removal=Gradual(steps=15, every=2), **words(pairs, sparsity=0.0))
    trained(model, pruner, pairs)
    assert pruner.achieved == 0
    assert all(int((model.get_parameter(name) == 0).sum()) == 0 for name in NAMES)
