"""The paper's networks (Menzies & Siebert, appendix, Tables III to V).

`docs/networks.md` says where the tables do not add up and what was taken instead. Each network is a chain of named
parts. Weights are Xavier-uniform and biases zero, since the autoencoder does not train from torch's default; they
are drawn from `generator` or, without one, from torch's global generator (`torch.manual_seed`), so that the same
seed gives the same network.
"""

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

MNIST_IMAGE = (1, 28, 28)
CIFAR_IMAGE = (3, 32, 32)


class Network(nn.Module):
    """Named parts, one after the other; `input_shape` is the shape of one sample, (C, H, W)."""

    def __init__(self, input_shape: tuple[int, ...], **parts: nn.Module) -> None:
        super().__init__()
        self.input_shape = input_shape
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, inputs: Tensor) -> Tensor:
        for part in self.children():
            inputs = part(inputs)
        return inputs


def autoencoder(
    latent: int = 64, image: tuple[int, int, int] = MNIST_IMAGE, *, generator: torch.Generator | None = None
) -> Network:
    """Tables IV (left) and V: pixels-512-256-128-128-`latent`-128-128-256-512-pixels, tanh between, sigmoid last.

    [N, C, H, W] to the same shape with values in [0, 1]. The latent values are tanh(`latent`(...)): the tanh is the
    decoder's first part. For MNIST the decoder has 591,632 parameters.
    """
    pixels = prod(image)
    network = Network(
        image,
        encoder=nn.Sequential(nn.Flatten(), *_dense(pixels, 512, 256, 128, 128), nn.Tanh()),
        latent=nn.Linear(128, latent),
        decoder=nn.Sequential(
            nn.Tanh(), *_dense(latent, 128, 128, 256, 512, pixels), nn.Sigmoid(), nn.Unflatten(1, image)
        ),
    )
    return initialised(network, generator)


def classifier(
    image: tuple[int, int, int] = MNIST_IMAGE, classes: int = 10, *, generator: torch.Generator | None = None
) -> Network:
    """Table III, left: pixels-256-128-64-32-`classes`, tanh between; 244,522 parameters for MNIST.

    [N, C, H, W] to logits [N, classes]: the table's softmax is in the loss (`tasks.cross_entropy`).
    """
    network = Network(image, flatten=nn.Flatten(), dense=nn.Sequential(*_dense(prod(image), 256, 128, 64, 32, classes)))
    return initialised(network, generator)


def conv_classifier(classes: int = 10, *, generator: torch.Generator | None = None) -> Network:
    """Table III, right: two convolutions to 576 features, then 576-128-64-32-`classes` (84,522 parameters for 10).

    [N, 3, 32, 32] to logits [N, classes]: the table's softmax is in the loss (`tasks.cross_entropy`).
    """
    network = Network(
        CIFAR_IMAGE,
        features=nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        ),
        dense=nn.Sequential(*_dense(576, 128, 64, 32, classes)),
    )
    return initialised(network, generator)


def conv_autoencoder(latent: int = 64, width: float = 1.0, *, generator: torch.Generator | None = None) -> Network:
    """Table IV, right: five convolutions to 1,152 features, `latent` nodes, and transposed convolutions back.

    [N, 3, 32, 32] to the same shape with values in [0, 1]. The latent values are tanh(`latent`(...)): the tanh is
    the decoder's first part. A dense layer from `latent` to 72 precedes the table's reshape to 8 x 3 x 3.

    Args:
        width: the share of the table's channels, above 0.
    """
    narrow, wide = (max(1, round(width * channels)) for channels in (64, 128))
    network = Network(
        CIFAR_IMAGE,
        encoder=nn.Sequential(
            nn.Conv2d(3, narrow, 3),
            nn.Tanh(),
            nn.Conv2d(narrow, wide, 3),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Conv2d(wide, wide, 3),
            nn.Tanh(),
            nn.Conv2d(wide, wide, 3),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Conv2d(wide, wide, 3),
            nn.Tanh(),
            nn.Flatten(),
        ),
        latent=nn.Linear(9 * wide, latent),
        decoder=nn.Sequential(
            nn.Tanh(),
            nn.Linear(latent, 72),
            nn.Tanh(),
            nn.Unflatten(1, (8, 3, 3)),
            nn.ConvTranspose2d(8, wide, 3),
            nn.Tanh(),
            nn.Upsample(scale_factor=2),
            nn.ConvTranspose2d(wide, wide, 3),
            nn.Tanh(),
            nn.ConvTranspose2d(wide, wide, 3),
            nn.Tanh(),
            nn.Upsample(scale_factor=2),
            nn.ConvTranspose2d(wide, wide, 3),
            nn.Tanh(),
            nn.ConvTranspose2d(wide, 3, 3),
            nn.Sigmoid(),
        ),
    )
    return initialised(network, generator)


def _dense(*widths: int) -> list[nn.Module]:
    """Linear layers of these widths with a tanh after each but the last."""
    layers: list[nn.Module] = [layer for ends in pairwise(widths) for layer in (nn.Linear(*ends), nn.Tanh())]
    return layers[:-1]


def initialised(network: Network, generator: torch.Generator | None) -> Network:
    """`network` with Xavier-uniform weights and zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network
