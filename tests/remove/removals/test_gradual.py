import pytest
import torch
from torch import nn

from compress.errors import InputError
from compress.remove.pruner import Pruner
from compress.remove.removals import Gradual
from compress.remove.remover import EarlyRemovalWarning


def layer(size=(10, 10), seed=0):
    torch.manual_seed(seed)
    return nn.Linear(*size, bias=False)


def test_the_set_grows_along_zhu_and_guptas_cubic():
    model = layer()
    pruner = Pruner(model, sparsity=0.8, removal=Gradual(steps=40, every=10))
    seen = []
    for step in range(1, 51):
        pruner.step()
        seen.append(int((model.weight == 0).sum()))
        if step < 40:
            since = step - step % 10
            assert seen[-1] == round(100 * 0.8 * (1 - (1 - since / 40) ** 3)), step
    assert seen[39] == seen[49] == 80
    pruner.finalize()
    assert (model.weight == 0).sum() == 80


def test_what_goes_is_what_is_small_at_that_moment():
    """Weights are moved between two steps of the ramp: the next cohort is taken by their new magnitudes."""
    model = layer()
    pruner = Pruner(model, sparsity=0.5, removal=Gradual(steps=20, every=10))
    with torch.no_grad():
        model.weight_orig.copy_(torch.arange(100.0, 0.0, -1.0).view(10, 10))
    for _ in range(10):
        pruner.step()
    first = round(50 * (1 - 0.5**3))
    assert (model.weight == 0).flatten().nonzero().flatten().tolist() == list(range(100 - first, 100))
    with torch.no_grad():
        model.weight_orig.copy_(torch.arange(1.0, 101.0).view(10, 10))
    for _ in range(10):
        pruner.step()
    gone = (model.weight == 0).flatten()
    assert gone[100 - first :].all()  # what is gone remains gone
    assert gone[: 50 - first].all()
    assert gone.sum() == 50


def test_a_loop_that_ends_early_is_told_and_the_set_complete():
    model = layer()
    pruner = Pruner(model, sparsity=0.5, removal=Gradual(steps=100, every=10))
    pruner.step()
    with pytest.warns(EarlyRemovalWarning, match="takes 100 steps and the loop made 1"):
        pruner.finalize()
    assert (model.weight == 0).sum() == 50


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 5, "every": 0}, {"steps": 5, "every": 1.5}])
def test_times_that_make_no_ramp(wrong):
    with pytest.raises(InputError, match="expected a whole number at least 1"):
        Gradual(**wrong)
