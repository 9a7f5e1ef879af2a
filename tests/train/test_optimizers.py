"""Optimizers against torch's own, and learning rates against their formulas."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress.errors import InputError
from compress.train.optimization import LRSchedule, Optimization, Optimizer
from compress.train.optimizers import optimizers, schedulers

SHAPES: dict[LRSchedule, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
}


@given(
    schedule=st.sampled_from(sorted(SHAPES)),
    warmup=st.floats(0, 0.99),
    steps=st.integers(1, 40),
    name=st.sampled_from(["sgd", "adam", "adamw", "muon"]),
)
def test_schedules_and_warm_up_are_their_formulas(
    schedule: LRSchedule, warmup: float, steps: int, name: Optimizer
) -> None:
    settings = Optimization(name, 0.05, lr_schedule=schedule, warmup=warmup)
    made = optimizers(nn.Linear(2, 2), settings)
    every = [found for optimizer in made for found in schedulers(optimizer, settings, steps)]
    rising = round(warmup * steps)
    for step in range(steps):
        expected = 0.05 * SHAPES[schedule](step / steps) * min(1.0, (step + 1) / (rising + 1))
        for optimizer in made:
            assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(expected, rel=1e-6, abs=1e-12)]
            optimizer.step()
        for scheduler in every:
            scheduler.step()


def test_settings_reach_the_optimizer() -> None:
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    for name, kind in kinds.items():
        settings = Optimization(name, lr=0.3, momentum=0.7, weight_decay=0.2)  # type: ignore[arg-type]
        (optimizer,) = optimizers(nn.Linear(2, 2), settings)
        assert type(optimizer).__bases__ == (kind,)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"], group["fused"]) == (0.3, 0.2, True)
        assert name != "sgd" or group["momentum"] == 0.7


def test_muon_gets_the_matrices_and_adamw_the_rest() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(2, 2))
    muon, adamw = optimizers(model, Optimization("muon"))
    assert muon.param_groups[0]["params"] == [model[1].weight]
    assert [tuple(found.shape) for found in adamw.param_groups[0]["params"]] == [(2, 1, 3), (2,), (2,)]


def test_only_what_requires_a_gradient_is_trained() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (optimizer,) = optimizers(model, Optimization())
    assert optimizer.param_groups[0]["params"] == [model.weight]
    with pytest.raises(InputError, match="no parameter of the model requires a gradient"):
        optimizers(model.requires_grad_(False), Optimization())
