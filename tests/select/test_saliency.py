"""Skeletonization against finite differences of the same quantity."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.errors import InputError, TargetError
from compress.select.saliency import skeletonization
from compress.tasks.linear import linear

H = 1e-5


def autoencoder():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 5), nn.Sigmoid()), 5, F.mse_loss


def classifier():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3))
    return model, (1, 4, 4), F.cross_entropy


def transposed():
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 1, 1))
    return model, (2, 3, 3), F.mse_loss


CASES = {
    "autoencoder": (autoencoder, ["0", "2"]),
    "classifier": (classifier, ["0", "3"]),
    "transposed": (transposed, ["0"]),
}


def build(key):
    torch.manual_seed(0)
    make, layers = CASES[key]
    model, shape, loss = make()
    model.double().train()
    shape = (shape,) if isinstance(shape, int) else shape
    inputs = torch.randn(7, *shape, dtype=torch.float64)
    with torch.no_grad():
        output = model.eval()(inputs)
    target = torch.randint(0, 3, (7,)) if loss is F.cross_entropy else torch.rand_like(output)
    model.train()
    return model, layers, loss, inputs, target


def error_per_sample(model, inputs, target, loss, error):
    values = []
    for x, t in zip(inputs.split(1), target.split(1), strict=True):
        output = model(x)
        if error == "loss":
            values.append(loss(output, t))
        elif t.is_floating_point():
            values.append((t - output).abs().mean())
        else:
            values.append((F.one_hot(t, 3) - output.softmax(-1)).abs().mean())
    return torch.stack(values)


@torch.no_grad()
def by_finite_differences(model, layer, inputs, target, loss, error, reduce):
    """Move each node's factor up and down, one at a time, and look at each sample's error."""
    module = model.get_submodule(layer)
    along = -1 if isinstance(module, nn.Linear) else 1
    with torch.no_grad():
        nodes = module.weight.shape[1 if isinstance(module, nn.ConvTranspose2d) else 0]
    saliency = []
    for node in range(nodes):
        errors = []
        for factor in (1 + H, 1 - H):

            def scale(_module, _args, output, node=node, factor=factor):
                output = output.clone()
                output.select(along, node).mul_(factor)
                return output

            handle = module.register_forward_hook(scale)
            errors.append(error_per_sample(model, inputs, target, loss, error))
            handle.remove()
        slope = (errors[0] - errors[1]) / (2 * H)
        saliency.append({"sum": slope.mean().abs(), "abs": slope.abs().mean(), "square": slope.square().mean()}[reduce])
    return torch.stack(saliency)


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("error", ["loss", "linear"])
@pytest.mark.parametrize("reduce", ["sum", "abs", "square"])
def test_against_finite_differences(key, error, reduce):
    model, layers, loss, inputs, target = build(key)
    batches = zip(inputs.split(3), target.split(3), strict=True)  # the last batch is smaller
    scores = skeletonization(model, layers, batches, linear(loss) if error == "linear" else loss, reduce=reduce)
    assert model.training
    model.eval()
    assert list(scores) == layers
    for layer in layers:
        expected = by_finite_differences(model, layer, inputs, target, loss, error, reduce)
        torch.testing.assert_close(scores[layer], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("key", CASES)
def test_one_forward_and_one_backward_pass_for_all_nodes_of_all_layers(key, monkeypatch):
    model, layers, loss, inputs, target = build(key)
    passes = []
    model.register_forward_pre_hook(lambda *_: passes.append("forward"))
    derive = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *args, **options: passes.append("backward") or derive(*args, **options)
    )
    skeletonization(model, layers, [(inputs, target)], loss)
    assert passes == ["forward", "backward"]


def test_in_place_activations_and_a_layer_called_twice():
    """What is scored is the layer's output, although the activation overwrites it; two calls share one factor."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(inplace=True), layer, nn.Linear(4, 2)).double().eval()
    inputs, target = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    found = skeletonization(model, ["0"], [(inputs, target)], F.mse_loss)["0"]
    expected = by_finite_differences(model, "0", inputs, target, F.mse_loss, "loss", "square")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_sums_in_half_precision_are_taken_in_single():
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).bfloat16()
    nn.init.ones_(model[0].weight)
    inputs, target = torch.ones(1000, 3).bfloat16(), torch.zeros(1000, 2).bfloat16()
    found = skeletonization(
        model, ["0"], [(inputs, target)], lambda output, target: (output - target).sum() / len(output)
    )
    assert found["0"].tolist() == [9.0, 9.0]


def test_a_node_that_nobody_reads_has_no_saliency():
    model, _, loss, inputs, target = build("autoencoder")
    with torch.no_grad():
        model[2].weight[:, 1] = 0
    scores = skeletonization(model, ["0"], [(inputs, target)], loss)["0"]
    assert scores[1] == 0
    assert (scores[[0, 2, 3]] > 0).all()


def test_leaves_no_trace():
    model, layers, loss, inputs, target = build("autoencoder")
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in model.parameters()]
    skeletonization(model, layers, [(inputs, target)], loss)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_mistakes():
    model, _, loss, inputs, target = build("autoencoder")
    with pytest.raises(TargetError, match="no layer 'latent'; layers with nodes are 0, 2"):
        skeletonization(model, ["latent"], [(inputs, target)], loss)
    with pytest.raises(TargetError, match="'1' is a Tanh"):
        skeletonization(model, ["1"], [(inputs, target)], loss)
    with pytest.raises(InputError, match="no scoring data"):
        skeletonization(model, ["0"], [], loss)
    model.add_module("idle", nn.Linear(5, 5).double())
    model.forward = lambda x: model[3](model[2](model[1](model[0](x))))
    with pytest.raises(TargetError, match="'idle' is not used in the forward pass"):
        skeletonization(model, ["idle"], [(inputs, target)], loss)
