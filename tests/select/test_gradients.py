"""Statistics of gradients against a plain loop of autograd, with and without masks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.errors import InputError
from compress.remove.masks import SoftPruningMethod, tensors
from compress.remove.pruner import Pruner
from compress.remove.removals import Soft
from compress.select import gradients
from compress.select.criteria.obd import obd
from compress.select.criteria.snip import snip
from compress.select.criteria.taylor import taylor, taylor_square
from compress.select.gradients import effective


def dense():
    layers = (nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4, 3))
    return nn.Sequential(*layers), (5,), [("0", "weight"), ("0", "bias"), ("3", "weight")]


def convolutional():
    layers = (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    return nn.Sequential(*layers), (2, 4, 4), [("0", "weight"), ("4", "weight")]


def twice():
    """One layer called twice: its gradients are sums over both calls."""
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer), (3,), [("0", "weight"), ("0", "bias")]


def sequence():
    """Several rows for each sample."""
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3)), (2, 4), [("0", "weight")]


SCORES = {"obd": obd, "taylor": taylor, "taylor_square": taylor_square, "snip": snip}
MAKERS = [dense, convolutional, twice, sequence]


def build(make, masked=False):
    torch.manual_seed(0)
    model, shape, names = make()
    model.double().train()
    inputs, target = torch.randn(7, *shape, dtype=torch.float64), torch.randint(0, 3, (7,))
    places = [(model.get_submodule(layer), name) for layer, name in names]
    if masked:
        for module, name in places:
            method = SoftPruningMethod.apply(module, name, torch.rand_like(getattr(module, name)) > 0.5)
            method.place([(module, method)], 0.3)
    return model, places, inputs, target


def by_hand(make, masked, size):
    """Gradients [batches, ...] of the loss at the effective weights, on a copy without masks."""
    _, places, inputs, target = build(make, masked)
    effectively = []
    for module, name in places:
        if masked:
            weight, mask, pruned = tensors(module, name)
            start = module.get_buffer(f"{name}_start")
            effectively.append(torch.where(pruned, start * mask, weight).detach())
        else:
            effectively.append(getattr(module, name).detach())
    plain, places, _, _ = build(make)
    plain.eval()
    parameters = [getattr(module, name) for module, name in places]
    with torch.no_grad():
        for parameter, value in zip(parameters, effectively, strict=True):
            parameter.copy_(value)
    slopes = []
    for some, wanted in zip(inputs.split(size), target.split(size), strict=True):
        slopes.append(torch.autograd.grad(F.cross_entropy(plain(some), wanted), parameters))
    return effectively, [torch.stack(rows) for rows in zip(*slopes, strict=True)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("make", MAKERS)
def test_against_a_loop(make, masked):
    model, places, inputs, target = build(make, masked)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def batches():
        return zip(inputs.split(3), target.split(3), strict=True)  # the last batch is smaller

    with effective(places) as leaves:
        found = {
            "obd": gradients.fisher(model, places, leaves, batches(), F.cross_entropy),
            "taylor": gradients.mean_abs(model, leaves, batches(), F.cross_entropy),
            "taylor_square": gradients.mean_square(model, leaves, batches(), F.cross_entropy),
            "snip": gradients.mean(model, leaves, batches(), F.cross_entropy),
        }
    weights, single = by_hand(make, masked, 1)
    _, batched = by_hand(make, masked, 3)
    for index, w in enumerate(weights):
        expected = {
            "obd": (w**2 * single[index] ** 2 / 2).mean(0),
            "taylor": (w * batched[index]).abs().mean(0),
            "taylor_square": ((w * batched[index]) ** 2).mean(0),
            "snip": (w * single[index].mean(0)).abs(),
        }
        for name, value in expected.items():
            torch.testing.assert_close(SCORES[name](w, found[name][index]), value)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("masked", [False, True])
def test_each_batch_has_a_gradient_of_its_own(masked):
    model, places, inputs, target = build(convolutional, masked)
    with effective(places) as leaves:
        batches = zip(inputs.split(3), target.split(3), strict=True)
        found = [
            [slope.clone() for slope in slopes] for slopes in gradients.each(model, leaves, batches, F.cross_entropy)
        ]
    _, expected = by_hand(convolutional, masked, 3)
    for rows, slopes in zip(zip(*found, strict=True), expected, strict=True):
        torch.testing.assert_close(torch.stack(rows), slopes)
    assert all(module.training for module in model.modules())
    with effective(places) as leaves, pytest.raises(InputError, match="no scoring data"):
        list(gradients.each(model, leaves, [], F.cross_entropy))


def test_a_modules_own_mode_comes_back():
    model, places, inputs, target = build(convolutional)
    model[1].eval()
    with effective(places) as leaves:
        gradients.mean(model, leaves, [(inputs, target)], F.cross_entropy)
    assert [module.training for module in model] == [True, False, True, True, True]


def test_a_layer_that_takes_no_part_has_no_gradient():
    model, places, inputs, target = build(dense)
    places = [*places, (nn.Linear(2, 2).double(), "weight")]
    with effective(places) as leaves:
        for found in (
            gradients.mean_abs(model, leaves, [(inputs, target)], F.cross_entropy),
            gradients.fisher(model, places, leaves, [(inputs, target)], F.cross_entropy),
        ):
            assert not found[-1].any()
            assert found[0].any()


@pytest.mark.parametrize("statistic", [gradients.mean, gradients.mean_abs, gradients.mean_square])
def test_no_data(statistic):
    model, places, _, _ = build(dense)
    with effective(places) as leaves, pytest.raises(InputError, match="no scoring data"):
        statistic(model, leaves, [], F.cross_entropy)
    with effective(places) as leaves, pytest.raises(InputError, match="no scoring data"):
        gradients.fisher(model, places, leaves, [], F.cross_entropy)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def test_effective_parameters_give_the_gradient_of_what_acts():
    """Masked or not: the same as a plain network whose weights are the products."""
    model, inputs, wanted = network(), torch.randn(10, 6), torch.randn(10, 3)
    Pruner(model, ["0.weight"], sparsity=0.5, removal=Soft(steps=4, decay="linear")).step()
    plain = network()
    with torch.no_grad():
        plain[0].weight.copy_(model[0].weight)
    model[2].weight.requires_grad_(False)
    with effective([(model[0], "weight"), (model[2], "weight")]) as leaves:
        found = torch.autograd.grad(F.mse_loss(model(inputs), wanted), leaves)
    expected = torch.autograd.grad(F.mse_loss(plain(inputs), wanted), [plain[0].weight, plain[2].weight])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert not model[2].weight.requires_grad
    # Outside, pruned entries get no gradient again.
    F.mse_loss(model(inputs), wanted).backward()
    assert (model[0].weight_orig.grad[model[0].weight_pruned] == 0).all()
