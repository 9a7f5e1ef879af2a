import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.errors import InputError
from compress.remove.pruner import Pruner
from compress.remove.removals import Gradual, GradualSoft
from compress.select.choose import LayerCollapseWarning


def layer(size=(10, 10), seed=0):
    torch.manual_seed(seed)
    return nn.Linear(*size, bias=False)


def train(model, optimizer, steps, pruner):
    for _ in range(steps):
        F.mse_loss(model(torch.randn(16, 10)), torch.randn(16, 10)).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()


def test_cohorts_decay_each_on_its_own():
    """Against a loop over single weights in numpy, without training: values, ages and sets."""
    model = layer()
    ramp, every, cohort, final = 12, 4, 6, 1e-3
    w = model.weight.detach().double().numpy().ravel().copy()
    start, age = w.copy(), np.full(100, -1)
    pruner = Pruner(
        model, sparsity=0.6, removal=GradualSoft(steps=ramp + cohort, every=every, cohort=cohort, final=final)
    )
    x = final ** (1 / cohort)
    for step in range(1, ramp + cohort + 1):
        pruner.step()
        if step == ramp + cohort:
            w[np.argsort(np.abs(w), kind="stable")[:60]] = 0.0
        else:
            if step <= ramp and step % every == 0:
                count = round(0.6 * (1 - (1 - step / ramp) ** 3) * 100)
                chosen = np.zeros(100, bool)
                chosen[np.argsort(np.abs(w), kind="stable")[:count]] = True
                start = np.where(chosen & (age < 0), w, start)
                age = np.where(chosen, np.maximum(age, 0), -1)
            age = np.where(age >= 0, age + 1, age)
            w = np.where(age >= cohort, 0.0, np.where(age >= 0, start * x ** age.clip(0), w))
        np.testing.assert_allclose(model.weight.detach().double().numpy().ravel(), w, rtol=2e-5, atol=1e-12)
    pruner.finalize()
    assert (model.weight == 0).sum() == 60


def test_a_living_member_leaves_the_set_with_the_value_it_has():
    model = layer((2, 2))
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    pruner = Pruner(model, sparsity=0.5, removal=GradualSoft(steps=12, every=1, cohort=10, final=2.0**-10))
    pruner.step()  # round(4 * 0.5 * 7/8) = 2 of 4: 1 and 2, halved
    assert model.weight.flatten().tolist() == [0.5, 1.0, 3.0, 4.0]
    with torch.no_grad():
        model.weight_orig[1] = torch.tensor([0.25, 4.0])  # training makes the third the smallest
    pruner.step()
    assert model.weight.flatten().tolist() == [0.25, 1.0, 0.125, 4.0]  # the second is out of the set, at 1.0
    assert model.weight_pruned.flatten().tolist() == [True, False, True, False]
    assert model.weight_orig[0, 1] == 1.0


@pytest.mark.parametrize("cohort", [0, 7])
def test_training_never_moves_what_is_on_its_way(cohort):
    model = layer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    soft = GradualSoft(steps=20 + cohort, every=5, cohort=cohort or 1)
    removal, factor = (soft, 1e-3 ** (1 / cohort)) if cohort else (Gradual(steps=20, every=5), 0.0)
    pruner = Pruner(model, sparsity=0.7, removal=removal)
    before = None
    for _ in range(20 + cohort - 1):
        train(model, optimizer, 1, pruner)
        if before is not None:
            weight, pruned = before
            stays = pruned & model.weight_pruned & (model.weight != 0)
            torch.testing.assert_close(model.weight[stays], weight[stays] * factor)
        before = model.weight.detach().clone(), model.weight_pruned.clone()
    train(model, optimizer, 1, pruner)
    pruner.finalize()
    assert (model.weight == 0).sum() == 70


def test_a_resumed_run_equals_the_uninterrupted_one():
    def run(interrupt):
        model = layer()
        pruner = Pruner(model, sparsity=0.7, removal=GradualSoft(steps=28, every=5, cohort=8))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        torch.manual_seed(1)
        train(model, optimizer, 12, pruner)
        if interrupt:
            saved = copy.deepcopy([model.state_dict(), optimizer.state_dict(), pruner.state_dict()])
            random_state = torch.get_rng_state()
            model = layer(seed=5)
            pruner = Pruner(model, sparsity=0.7, removal=GradualSoft(steps=28, every=5, cohort=8))
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            for part, state in zip((model, optimizer, pruner), saved, strict=True):
                part.load_state_dict(state)
            torch.set_rng_state(random_state)
        train(model, optimizer, 20, pruner)
        pruner.finalize()
        return model.weight

    assert torch.equal(run(interrupt=False), run(interrupt=True))


def test_collapse_is_said_once():
    model = nn.Sequential(layer(), layer(seed=1))
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
    pruner = Pruner(model, sparsity=0.5, removal=GradualSoft(steps=6, every=2, cohort=2))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(6):
            pruner.step()
    assert [one.category for one in seen] == [LayerCollapseWarning]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 5, "cohort": -1}, "found -1; expected a whole number at least 1"),
        ({"steps": 5, "cohort": 5}, "which leaves no time for a ramp"),
        ({"steps": 5, "every": 0}, "expected a whole number at least 1"),
        ({"steps": 5, "final": 0.0}, "expected a number above 0 and below 1"),
    ],
)
def test_times_that_make_no_ramp(wrong, says):
    with pytest.raises(InputError, match=says):
        GradualSoft(**wrong)


def test_a_cohort_takes_a_quarter_if_nothing_is_said():
    removal = GradualSoft(steps=40)
    assert (removal.decaying, removal.ramp, removal.length) == (10, 30, 40)
