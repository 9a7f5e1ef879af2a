"""Networks of a slim network's shape with random weights."""

import math

import pytest
import torch
from torch import Tensor, nn

import compress
from compress import models
from compress.errors import UnsupportedModelError
from compress.slimming.edits import insert_bottleneck
from compress.slimming.fresh import Build, fresh
from compress.slimming.norms import CountedLayerNorm
from compress.slimming.slim_graph import SlimGraph

IMAGES = torch.zeros(2, 1, 28, 28) + torch.linspace(0, 1, 28)


def std(tensor: Tensor) -> float:
    return float(tensor.detach().std())


def slimmed(build: Build, example: Tensor, sparsity: float = 0.75) -> nn.Module:
    """The network at a share of every width, with other weights than `build` draws."""
    model = build(0).eval()
    pruner = compress.Pruner(model, compress.nodes("*"), sparsity=sparsity, example=example, criterion="norms")
    pruner.finalize()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(1.0)
    return compress.slim(model, example)


def plain(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)
    )


def test_layers_have_the_distribution_of_their_own_shape() -> None:
    small = slimmed(plain, IMAGES)
    found, other = fresh(small, plain, 5, IMAGES), small.state_dict()
    assert [tuple(one.shape) for one in found.parameters()] == [tuple(one.shape) for one in small.parameters()]
    for layer in (found[1], found[3], found[5]):
        bound = 1 / math.sqrt(layer.in_features)  # torch's own
        assert std(layer.weight) == pytest.approx(bound / math.sqrt(3), rel=0.06)
        assert layer.weight.abs().max() < 1.1 * bound
        assert std(layer.bias) == pytest.approx(bound / math.sqrt(3), rel=0.5)
    assert all(torch.equal(tensor, other[name]) for name, tensor in small.state_dict().items())
    assert found.training
    again = fresh(small, plain, 5, IMAGES)
    assert all(torch.equal(one, two) for one, two in zip(found.parameters(), again.parameters(), strict=True))


def test_the_builder_has_its_own_distribution() -> None:
    """Xavier-uniform here, without which the autoencoder does not train."""

    def build(seed: int) -> nn.Module:
        return models.autoencoder(64, generator=torch.Generator().manual_seed(seed))

    layer = fresh(slimmed(build, IMAGES, 0.5), build, 1, IMAGES).get_submodule("encoder.3")
    assert isinstance(layer, nn.Linear)
    assert (layer.in_features, layer.out_features) == (256, 128)
    assert std(layer.weight) == pytest.approx(math.sqrt(2 / (256 + 128)), rel=0.05)
    assert not layer.bias.any()


class Mixed(nn.Module):
    """A batch norm, a layer norm whose count follows, a recurrent layer, learned tokens, and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 16, 4, stride=4), nn.BatchNorm2d(16)
        self.tokens = nn.Parameter(torch.randn(1, 49, 16) * 0.02)
        self.register_buffer("scale", torch.arange(49.0)[:, None] * torch.linspace(0, 1, 16))
        self.layer_norm, self.lstm, self.head = nn.LayerNorm(16), nn.LSTM(16, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.conv(images)).flatten(2).transpose(1, 2) * self.scale + self.tokens
        logits: Tensor = self.head(self.lstm(self.layer_norm(tokens))[0].mean(1))
        return logits


def mixed(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Mixed()


def test_every_kind_of_tensor() -> None:
    small = slimmed(mixed, IMAGES, 0.5)
    found = fresh(small, mixed, 3, IMAGES)
    assert found.norm.num_features == 8
    assert torch.equal(found.norm.running_mean, torch.zeros(8))
    assert torch.equal(found.norm.running_var, torch.ones(8))
    assert torch.equal(found.scale, small.scale)
    assert std(found.tokens) == pytest.approx(0.02, rel=0.2)
    assert float(found.lstm.weight_ih_l0.detach().abs().max()) == pytest.approx(
        1 / math.sqrt(found.lstm.hidden_size), rel=0.1
    )
    assert isinstance(found.layer_norm, CountedLayerNorm)
    normed = found.layer_norm(torch.randn(4, 8) * 3 + 1)
    assert torch.allclose(normed.mean(1), torch.zeros(4), atol=1e-5)
    assert torch.allclose(normed.square().mean(1), torch.ones(4), atol=1e-3)


def pretrained(seed: int) -> nn.Module:
    return plain(7)


def test_weights_that_do_not_depend_on_the_seed_are_drawn() -> None:
    small = slimmed(pretrained, IMAGES)
    one, two = fresh(small, pretrained, 1, IMAGES), fresh(small, pretrained, 2, IMAGES)
    assert not torch.equal(one[5].weight, two[5].weight)
    assert std(one[5].weight) == pytest.approx(1 / math.sqrt(3 * one[5].in_features), rel=0.06)


def test_a_bottleneck_that_a_stage_has_put_in() -> None:
    def build(seed: int) -> nn.Module:
        return models.autoencoder(8, (1, 6, 6), generator=torch.Generator().manual_seed(seed))

    images, model = torch.rand(2, 1, 6, 6), build(0).eval()
    name = insert_bottleneck(model, "decoder.1")
    found = fresh(model, build, 1, images)
    axes = found.get_submodule(name)
    assert std(axes.weight) > 0.05
    assert found(images).shape == images.shape


def attention(dropout: float) -> Build:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = models.vision_transformer(depth=1, generator=torch.Generator().manual_seed(seed))
        model.blocks[0].attention.dropout = dropout
        return model

    return build


def test_graphs_train_where_training_makes_no_difference() -> None:
    small = slimmed(attention(0.0), IMAGES, 0.5)
    assert isinstance(small, SlimGraph)
    found = fresh(small, attention(0.0), 1, IMAGES)
    assert isinstance(found, SlimGraph)
    assert found(IMAGES).shape == (2, 10)
    weight = found.get_parameter("blocks.0.mlp.0.weight")
    assert std(weight) == pytest.approx(math.sqrt(2 / (32 + 64)), rel=0.05)
    with pytest.raises(UnsupportedModelError, match="something else in training"):
        fresh(small, attention(0.5), 1, IMAGES)
