"""Regrowth during a gradual removal; the other choices of weights are tested with their stages."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compress.remove.gradual import Gradual
from torch import Tensor, nn

from compress.data.sources import from_npz
from compress.recipe.schema import Stage
from compress.remove.pruner import Pruner
from compress.run.choice import Pruned
from compress.run.clock import Clock
from compress.run.setting import Setting, unwatched
from compress.run.stage import run_stage
from compress.run.weight_choice import WeightChoice

NAMES = ["1.weight", "3.weight"]
RAMP, EVERY, SHARE, SAMPLES = 12, 3, 0.5, 30


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 36), nn.Unflatten(1, (1, 6, 6)))


@pytest.fixture
def setting(npz: Path) -> Setting:
    return Setting(from_npz(npz), "reconstruct", 20, torch.device("cpu"), 0, unwatched, Clock())


def stage(**changes: Any) -> Stage:
    plain = {
        "target": {"weights": ["*"]},
        "criterion": "magnitude",
        "sparsity": 0.75,
        "removal": {"kind": "gradual", "every": "2 steps"},
        "regrow": {"share": SHARE, "samples": SAMPLES},
        "retrain": {"epochs": 4, "optimizer": "adam", "lr": 0.01},
    }
    return Stage.model_validate(plain | changes)


def first_images(setting: Setting) -> tuple[Tensor, Tensor]:
    """(inputs, targets), of which the inputs are normalised."""
    return next(iter(setting.data.batches("train", SAMPLES, "reconstruct")()))


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
    model: nn.Module, wanted: Stage, pruned: Pruned, setting: Setting, cohort: int, look: Callable[..., None]
) -> Iterator[Pruner]:
    """Train along a ramp, and `look` at (sparsity, weights, gone, kept) at every choice."""
    choice = WeightChoice(model, wanted, 0, pruned, setting)

    def chooser(sparsity: float, gone: Sequence[Tensor]) -> list[Tensor]:
        weights = [model[layer].weight.detach().clone() for layer in (1, 3)]
        kept = choice(sparsity, gone)
        look(sparsity, weights, torch.cat([mask.flatten() for mask in gone]), torch.cat([k.flatten() for k in kept]))
        return kept

    removal = Gradual(RAMP, EVERY, cohort)
    pruner = Pruner(model, NAMES, wanted.goes, removal=removal, chooser=chooser)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    images, targets = first_images(setting)
    for _ in range(removal.steps):
        (model(images) - targets).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        yield pruner


@pytest.mark.parametrize("cohort", [0, 2])
def test_the_gone_with_the_steepest_loss_come_back_at_zero_and_others_go(setting: Setting, cohort: int) -> None:
    """Every choice against a sort by hand, and a plain network's gradient."""
    model, seen, came_back = network(), [], torch.zeros(576, dtype=torch.bool)

    def look(sparsity: float, weights: Sequence[Tensor], gone: Tensor, kept: Tensor) -> None:
        nonlocal came_back
        seen.append(sparsity)
        time = (0, 3, 6, 9, 12, 12)[len(seen) - 1]
        share = SHARE * (1 + np.cos(np.pi * time / RAMP)) / 2
        slopes = slopes_by_hand(weights, model, *first_images(setting)).abs()
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
    for pruner in watched(model, stage(), Pruned(), setting, cohort, look):
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


def test_what_an_earlier_stage_took_never_comes_back(setting: Setting) -> None:
    model, pruned = network(), Pruned()
    run_stage(model, stage(sparsity=0.4, removal="hard", regrow=None, retrain=None), 0, pruned, setting)
    earlier = torch.cat([pruned.keep[name].flatten() for name in NAMES])
    returned = 0

    def look(sparsity: float, weights: Sequence[Tensor], gone: Tensor, kept: Tensor) -> None:
        nonlocal returned
        returned += int((kept & gone).sum())
        assert not (kept & ~earlier).any()
        assert (torch.cat([weight.flatten() for weight in weights])[~earlier] == 0).all()

    *_, pruner = watched(model, stage(), pruned, setting, 0, look)
    assert returned > 5
    pruner.finalize()
    assert sum(int((model[layer].weight == 0).sum()) for layer in (1, 3)) == 432


@pytest.mark.parametrize("removal", ["gradual", "gradual_soft"])
@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
@pytest.mark.parametrize("criterion", ["magnitude", "lamp"])
def test_as_many_go_as_without_regrowth(setting: Setting, removal: str, scope: str, criterion: str) -> None:
    model = network()
    wanted = stage(removal={"kind": removal, "every": "2 steps"}, scope=scope, criterion=criterion, min_keep=20)
    entry = run_stage(model, wanted, 0, Pruned(), setting)
    zeros = [int((model.get_parameter(name) == 0).sum()) for name in NAMES]
    assert entry["pruned"] == sum(zeros) == 432
    assert max(zeros) <= 288 - 20
    if scope != "global":
        assert zeros == [216, 216]


def test_nothing_is_regrown_where_nothing_goes(setting: Setting) -> None:
    assert run_stage(network(), stage(sparsity=0.0), 0, Pruned(), setting)["pruned"] == 0
