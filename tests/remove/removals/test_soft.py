import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from compress.errors import InputError, TargetError
from compress.remove import decay
from compress.remove.decay import CURVES
from compress.remove.pruner import Pruner
from compress.remove.removals import Soft
from compress.remove.remover import EarlyRemovalWarning
from compress.select.choose import LayerCollapseWarning


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_equation_one_against_numpy(kind):
    """100 steps of SGD: the pruned weights follow W*M*x, the others (W + dW)*(1 - M), in a plain numpy loop."""
    torch.manual_seed(0)
    x_factor, lr = 0.97, 0.05
    layer = nn.Linear(6, 5, bias=False) if kind == "linear" else nn.Conv2d(2, 3, 3, bias=False)
    shape = (8, 6) if kind == "linear" else (4, 2, 5, 5)
    data = torch.randn(100, *shape)
    target = torch.randn(100, *layer(data[0]).shape)
    W = layer.weight.detach().numpy().copy()
    pruner = Pruner(layer, [(layer, "weight")], sparsity=0.5, removal=Soft(factor=x_factor))
    M = layer.weight_pruned.numpy().astype(np.float32)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr)
    for inputs, wanted in zip(data, target, strict=True):
        F.mse_loss(layer(inputs), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        dW = -lr * mse_gradient(kind, W, inputs.numpy(), wanted.numpy())
        W = W * M * np.float32(x_factor) + (W + dW) * (1 - M)
        assert np.abs(layer.weight.detach().numpy() - W).max() <= 1e-6
        assert np.abs((layer.weight_start * layer.weight_mask).numpy() - W)[M == 1].max() <= 1e-6


def mse_gradient(kind, W, x, t):
    if kind == "linear":
        return 2 / t.size * (x @ W.T - t).T @ x
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    error = np.einsum("nihwkl,oikl->nohw", windows, W) - t
    return 2 / t.size * np.einsum("nohw,nihwkl->oikl", error, windows)


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("curve", ["exponential", "cosine"])
def test_a_pruned_entry_never_grows_nor_comes_back(make, curve):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = make(model.parameters())
    train(model, optimizer, 20)  # momentum of the entries' former life
    start = [model[0].weight.detach().clone(), model[2].weight.detach().clone()]
    pruner = Pruner(model, sparsity=0.6, removal=Soft(steps=40, decay=curve))
    sets = [model[0].weight_pruned.clone(), model[2].weight_pruned.clone()]
    last = [weight[pruned].abs() for weight, pruned in zip(start, sets, strict=True)]
    for t in range(1, 61):
        train(model, optimizer, 1, pruner)
        for index, (layer, w0) in enumerate(zip((model[0], model[2]), start, strict=True)):
            now = layer.weight.detach()[sets[index]]
            expected = w0[sets[index]] * (0.0 if t >= 40 else CURVES[curve](t / 40))
            torch.testing.assert_close(now, expected, rtol=1e-6, atol=1e-9)
            assert (now.abs() <= last[index]).all()
            last[index] = now.abs()
    pruner.finalize()
    for layer, pruned in zip((model[0], model[2]), sets, strict=True):
        assert (layer.weight[pruned] == 0.0).all()
        assert (layer.weight[~pruned] != 0.0).all()


def train(model, optimizer, steps, pruner=None):
    for _ in range(steps):
        F.mse_loss(model(torch.randn(16, 6)), torch.randn(16, 3)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if pruner is not None:
            pruner.step()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def test_sparsity_is_exact_and_global():
    model = network()
    expected = np.sort(np.abs(np.concatenate([model[0].weight.detach().ravel(), model[2].weight.detach().ravel()])))
    pruner = Pruner(model, sparsity=0.75, removal=Soft(steps=3))
    assert pruner.achieved == 54 / 72
    pruner.step(), pruner.step(), pruner.step()
    pruner.finalize()
    kept = torch.cat([model[0].weight.flatten(), model[2].weight.flatten()]).detach().abs()
    assert (kept == 0).sum() == 54
    np.testing.assert_array_equal(np.sort(kept[kept > 0]), expected[54:])


@pytest.mark.parametrize(
    "targets",
    [["0.*"], ["0.weight"], "module", "tensor"],
)
def test_ways_to_name_a_target(targets):
    model = network()
    wanted = {"module": [(model[0], "weight")], "tensor": [model[0].weight]}.get(str(targets), targets)
    pruner = Pruner(model, wanted, sparsity=0.5, removal=Soft(steps=2))
    assert [target.path for target in pruner.targets] == ["0.weight"]
    assert not hasattr(model[2], "weight_mask")


def test_factor_counts_down_and_says_when_it_removes():
    model = network()
    pruner = Pruner(model, sparsity=0.5, removal=Soft(steps=4, decay="linear"))
    seen = []
    while not pruner.removed:
        seen.append((pruner.factor, pruner.removes_next))
        pruner.step()
    assert seen == [(1.0, False), (0.75, False), (0.5, False), (0.25, True)]
    assert pruner.factor == 0.0


def test_sparsity_zero_changes_nothing():
    model = network()
    plain = copy.deepcopy(model)
    pruner = Pruner(model, sparsity=0.0, removal=Soft(steps=2))
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (model, plain)]
    for _ in range(3):
        x, y = torch.randn(4, 6), torch.randn(4, 3)
        for m, optimizer in zip((model, plain), optimizers, strict=True):
            F.mse_loss(m(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        pruner.step()
    pruner.finalize()
    for key, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_finalize_is_idempotent_and_leaves_plain_names():
    model = network()
    names = list(model.state_dict())
    pruner = Pruner(model, sparsity=0.5, removal=Soft(steps=1))
    pruner.step()
    pruner.finalize()
    after = copy.deepcopy(model.state_dict())
    pruner.finalize()
    assert sorted(model.state_dict()) == sorted(names)
    assert not prune.is_pruned(model)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in after.items())
    with pytest.raises(InputError, match="step after finalize"):
        pruner.step()


def test_finalize_too_early_says_so_and_still_removes_exactly():
    model = network()
    pruner = Pruner(model, sparsity=0.5, removal=Soft(steps=100))
    pruner.step()
    with pytest.warns(EarlyRemovalWarning, match="takes 100 steps and the loop made 1"):
        pruner.finalize()
    assert (model[0].weight == 0).sum() + (model[2].weight == 0).sum() == 36


def test_resumed_run_equals_the_uninterrupted_one():
    def run(interrupt):
        model = network()
        pruner = Pruner(model, sparsity=0.5, removal=Soft(steps=20))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        torch.manual_seed(1)
        train(model, optimizer, 8, pruner)
        if interrupt:
            saved = copy.deepcopy([model.state_dict(), optimizer.state_dict(), pruner.state_dict()])
            random_state = torch.get_rng_state()
            model = network()
            torch.set_rng_state(random_state)
            with torch.no_grad():
                model[0].weight.mul_(3)  # whatever it held before: the checkpoint decides
            pruner = Pruner(model, sparsity=0.5, removal=Soft(steps=20))
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
            pruner.load_state_dict(saved[2])
        train(model, optimizer, 12, pruner)
        pruner.finalize()
        return model.state_dict()

    whole, halves = run(interrupt=False), run(interrupt=True)
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


def test_state_of_another_run_is_refused():
    state = Pruner(network(), sparsity=0.5, removal=Soft(steps=20)).state_dict()
    with pytest.raises(InputError, match="removal_steps are 20, here 30"):
        Pruner(network(), sparsity=0.5, removal=Soft(steps=30)).load_state_dict(state)
    with pytest.raises(InputError, match="targets are"):
        Pruner(network(), ["0.*"], sparsity=0.5, removal=Soft(steps=20)).load_state_dict(state)


def test_an_optimizer_made_before_or_after_makes_no_difference():
    results = []
    for early in (True, False):
        model = network()
        optimizer = torch.optim.Adam(model.parameters()) if early else None
        pruner = Pruner(model, sparsity=0.5, removal=Soft(steps=10))
        optimizer = optimizer or torch.optim.Adam(model.parameters())
        torch.manual_seed(1)
        train(model, optimizer, 10, pruner)
        pruner.finalize()
        results.append(model.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_own_masks_and_own_criterion():
    model = network()
    keep = torch.rand(8, 6) > 0.5
    Pruner(model, ["0.weight"], keep=[keep], removal=Soft(steps=3))
    assert torch.equal(model[0].weight_pruned, ~keep)
    model = network()
    scores = torch.rand(8, 6, generator=torch.Generator().manual_seed(3))
    Pruner(
        model,
        ["0.weight"],
        sparsity=0.5,
        removal=Soft(steps=3),
        criterion=lambda w: torch.rand(w.shape, generator=torch.Generator().manual_seed(3)),
    )
    assert torch.equal(model[0].weight_pruned, scores < scores.flatten().sort().values[24])


def test_collapse_is_said_with_the_layers_name():
    model = network()
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
    with pytest.warns(LayerCollapseWarning, match=r"0\.weight would keep 0 of its 48 weights"):
        Pruner(model, sparsity=0.75, removal=Soft(steps=2))
    model = network()
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
    pruner = Pruner(model, sparsity=0.75, removal=Soft(steps=2), min_keep=0.1)
    assert (~model[0].weight_pruned).sum() == 5
    assert pruner.achieved == 0.75


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "give steps"),
        ({"steps": 3, "factor": 0.9}, "found together with the length"),
        ({"factor": 0.9, "decay": "linear"}, "only the exponential decay has it"),
        ({"steps": 3, "decay": "linear", "final": 0.5}, "only the exponential decay has it"),
        ({"steps": -3}, "found -3; expected a whole number at least 0"),
        ({"steps": 3, "decay": "cosin"}, "did you mean cosine"),
    ],
)
def test_mistakes(arguments, says):
    with pytest.raises(InputError, match=says):
        Soft(**arguments)


def test_a_mask_that_does_not_fit_leaves_no_half_pruned_model():
    model = network()
    good, bad = torch.ones(8, 6, dtype=torch.bool), torch.ones(3, 9, dtype=torch.bool)
    with pytest.raises(TargetError, match=r"must be bool \(3, 8\)"):
        Pruner(model, keep=[good, bad], removal=Soft(steps=3))
    assert not prune.is_pruned(model)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_gradients_of_pruned_entries_change_nothing_where_entries_stand_alone(make):
    """Which is why they need not be masked: to the last bit, whatever the optimizer's state was before."""
    results = []
    for masked in (True, False):
        model = network()
        optimizer = make(model.parameters())
        torch.manual_seed(1)
        train(model, optimizer, 5)
        pruner = Pruner(model, sparsity=0.6, removal=Soft(steps=12), mask_gradients=masked)
        train(model, optimizer, 8, pruner)
        before = model[0].weight.detach().clone()
        F.mse_loss(model(torch.randn(16, 6)), torch.randn(16, 3)).backward()
        optimizer.step()
        pruner.hold()
        pruned = model[0].weight_pruned
        assert torch.equal(model[0].weight[pruned], before[pruned])
        train(model, optimizer, 8, pruner)
        pruner.finalize()
        results.append(model.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_gradient_accumulation_and_clipping_never_see_pruned_entries():
    model = network()
    Pruner(model, ["0.weight"], sparsity=0.5, removal=Soft(steps=10))
    for _ in range(2):
        F.mse_loss(model(torch.randn(4, 6)), torch.randn(4, 3)).backward()
    assert (model[0].weight_orig.grad[model[0].weight_pruned] == 0).all()
    assert (model[0].weight_orig.grad[~model[0].weight_pruned] != 0).any()


def test_weights_underneath_a_mask_go_on_learning_where_that_is_wanted():
    """Against a plain loop: the gradient of the product reaches W through the mask."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False)
    plain = model.weight.detach().clone()
    chosen = plain.abs() <= plain.abs().flatten().sort().values[11]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    fall = decay.over(8, "linear")
    pruner = Pruner(model, sparsity=0.5, removal=Soft(steps=8, decay="linear", learns=True))
    for step in range(1, 9):
        inputs, wanted = torch.randn(8, 6), torch.randn(8, 4)
        F.mse_loss(model(inputs), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        mask = torch.where(chosen, fall(step - 1), 1.0)
        leaf = plain.clone().requires_grad_(True)
        F.mse_loss(inputs @ (leaf * mask).T, wanted).backward()
        plain -= 0.5 * leaf.grad
        torch.testing.assert_close(model.weight.detach(), plain * torch.where(chosen, fall(step), 1.0))
    pruner.finalize()
    assert torch.equal(model.weight == 0, chosen)
