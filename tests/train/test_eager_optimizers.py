"""Each optimizer does what torch's own does, to the last bit, and a training loop imports no compiler."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from compress.train import eager_optimizers

SETTINGS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "fused": True},
    "Adam": {"lr": 0.01, "fused": True},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1, "fused": True},
    "Muon": {"lr": 0.01},
}

LOOP = """
import sys
import torch
from compress.slimming.bottleneck import take_apart
from compress.train.optimization import Optimization
from compress.train.optimizers import optimizers, schedulers

model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
take_apart(model, "1")
for name in ("sgd", "adam", "adamw", "muon"):
    settings = Optimization(name, lr_schedule="cosine", warmup=0.1)
    for optimizer in optimizers(model, settings):
        for scheduler in schedulers(optimizer, settings, 4):
            optimizer.zero_grad()
            model(torch.randn(2, 3)).sum().backward()
            optimizer.step()
            scheduler.step()
        optimizer.load_state_dict(optimizer.state_dict())
print(sorted(name for name in ("torch._dynamo", "sympy") if name in sys.modules))
"""


def trained(kind: type[torch.optim.Optimizer], settings: dict[str, Any]) -> tuple[list[torch.Tensor], Any]:
    """Weights and state after steps, with one state loaded on the way."""
    torch.manual_seed(0)
    model, given = nn.Linear(4, 3, bias=False), torch.randn(5, 4)
    optimizer: Any = kind(model.parameters(), **settings)
    for step in range(6):
        if step == 3:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = kind(model.parameters(), **settings)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
        model(given).square().sum().backward()
        optimizer.step()
        assert all(parameter.requires_grad for parameter in model.parameters())
    return [parameter.detach() for parameter in model.parameters()], optimizer.state_dict()


@pytest.mark.parametrize("name", SETTINGS)
def test_each_is_torchs_own_to_the_last_bit(name: str) -> None:
    found, state = trained(getattr(eager_optimizers, name), SETTINGS[name])
    expected, expected_state = trained(getattr(torch.optim, name), SETTINGS[name])
    assert all(map(torch.equal, found, expected))
    assert state["param_groups"] == expected_state["param_groups"]
    for key, value in expected_state["state"][0].items():
        assert torch.equal(state["state"][0][key], value)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_is_one_of_torchs_that_hooks_see_and_pickle_takes(name: str) -> None:
    kind, model, seen = getattr(eager_optimizers, name), nn.Linear(4, 3, bias=False), []
    optimizer = kind(model.parameters(), **SETTINGS[name])
    assert isinstance(optimizer, getattr(torch.optim, name))
    handle = register_optimizer_step_pre_hook(lambda *given: seen.append(given[0]))
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    handle.remove()
    assert seen == [optimizer]
    assert type(pickle.loads(pickle.dumps(optimizer))) is kind


def test_a_loss_is_computed_with_gradients_within_a_step() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = eager_optimizers.SGD([weight], lr=0.5)

    def loss() -> float:
        found = weight.sum()
        found.backward()
        return float(found.detach())

    assert optimizer.step(loss) == 2.0
    assert weight.tolist() == [0.5, 0.5]


def test_a_training_loop_imports_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
