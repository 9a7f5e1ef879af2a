"""The paper's networks: the shapes of Tables III to V, counted by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from compress import models

BUILDERS = [
    models.autoencoder,
    lambda generator=None: models.autoencoder(16, (3, 32, 32), generator=generator),
    models.classifier,
    models.conv_classifier,
    models.conv_autoencoder,
]
Builder = Callable[..., models.Network]


def widths(module: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in module.modules() if isinstance(layer, nn.Linear)]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_autoencoder_is_table_v() -> None:
    model = models.autoencoder()
    assert widths(model.encoder) == [(784, 512), (512, 256), (256, 128), (128, 128)]
    assert widths(model.latent) == [(128, 64)]
    assert widths(model.decoder) == [(64, 128), (128, 128), (128, 256), (256, 512), (512, 784)]
    assert count(model.decoder) == 591_632
    # A tanh after every dense layer but the last, the latent one included.
    assert sum(isinstance(module, nn.Tanh) for module in model.modules()) == 9
    assert isinstance(model.encoder[0], nn.Flatten)
    assert isinstance(model.decoder[0], nn.Tanh)


def test_classifier_is_table_iii() -> None:
    model = models.classifier()
    assert widths(model.dense) == [(784, 256), (256, 128), (128, 64), (64, 32), (32, 10)]
    assert count(model) == 244_522
    assert isinstance(model.dense[-1], nn.Linear)


def test_conv_classifier_is_table_iii() -> None:
    model = models.conv_classifier()
    assert widths(model.dense) == [(576, 128), (128, 64), (64, 32), (32, 10)]
    assert count(model.dense) == 84_522
    assert count(model.features) == 8 * 28 + 16 * 73
    assert model.features(torch.zeros(2, 3, 32, 32)).shape == (2, 576)


def test_a_narrower_conv_autoencoder_has_a_share_of_the_channels() -> None:
    model = models.conv_autoencoder(10, width=0.25)
    channels = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert channels == [16, *[32] * 8, 3]
    assert widths(model) == [(288, 10), (10, 72)]
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_conv_autoencoder_is_table_iv() -> None:
    model = models.conv_autoencoder(10)
    channels = [
        (layer.in_channels, layer.out_channels, layer.kernel_size)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    expected = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 128)]
    expected += [(8, 128), (128, 128), (128, 128), (128, 128), (128, 3)]
    assert channels == [(*ends, (3, 3)) for ends in expected]
    assert widths(model) == [(1152, 10), (10, 72)]
    heights = []
    for layer in [*model.encoder, model.latent, *model.decoder]:
        layer.register_forward_hook(
            lambda _, __, output: heights.append(output.shape[-1]) if output.ndim == 4 else None
        )
    model(torch.zeros(1, 3, 32, 32))
    assert heights == [30, 30, 28, 28, 14, 12, 12, 10, 10, 5, 3, 3, 3, 5, 5, 10, 12, 12, 14, 14, 28, 30, 30, 32, 32]


@pytest.mark.parametrize("build", BUILDERS)
def test_inputs_and_outputs_have_the_said_shapes(build: Builder) -> None:
    model = build()
    output = model(torch.randn(2, *model.input_shape))
    if hasattr(model, "latent"):
        assert output.shape == (2, *model.input_shape)
        assert output.min() >= 0
        assert output.max() <= 1
    else:
        assert output.shape == (2, 10)
        assert output.min() < 0  # logits, no probabilities


@pytest.mark.parametrize("build", BUILDERS)
def test_weights_are_xavier_uniform_and_biases_zero(build: Builder) -> None:
    for layer in build(generator=torch.Generator().manual_seed(0)).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # Glorot & Bengio 2010, eq. 16, the fans of a convolution counted with its kernel.
            first, second, *kernel = layer.weight.shape
            bound = (6 / ((first + second) * torch.Size(kernel).numel())) ** 0.5
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            assert layer.bias is not None
            assert not layer.bias.any()


@pytest.mark.parametrize("build", BUILDERS)
def test_a_seed_gives_one_network(build: Builder) -> None:
    def weights(model: nn.Module) -> torch.Tensor:
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    one, same, other = (weights(build(generator=torch.Generator().manual_seed(seed))) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = weights(build())
        torch.manual_seed(5)
        assert torch.equal(first, weights(build()))


@pytest.mark.parametrize("build", BUILDERS)
def test_torch_export_traces_it_with_a_dynamic_batch(build: Builder) -> None:
    model = build()
    program = torch.export.export(
        model, (torch.zeros(2, *model.input_shape),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    inputs = torch.randn(5, *model.input_shape)
    torch.testing.assert_close(program.module()(inputs), model(inputs))
