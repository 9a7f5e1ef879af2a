"""The two networks of LeCun et al. (1998) in the sizes that the pruning literature compares itself on (Caffe's)."""

import torch
from torch import nn

from compress.models.paper import MNIST_IMAGE, Network, initialised


def lenet_300_100(classes: int = 10, *, generator: torch.Generator | None = None) -> Network:
    """784-300-100-`classes`, ReLU between; 266,610 parameters for 10 classes.

    [N, 1, 28, 28] to logits [N, classes].
    """
    widths = [(28 * 28, 300), (300, 100), (100, classes)]
    layers: list[nn.Module] = [layer for ends in widths for layer in (nn.Linear(*ends), nn.ReLU())]
    return initialised(Network(MNIST_IMAGE, flatten=nn.Flatten(), dense=nn.Sequential(*layers[:-1])), generator)


def lenet_5(classes: int = 10, *, generator: torch.Generator | None = None) -> Network:
    """Convolutions of 20 and 50 channels (5 x 5), each with max pooling, then 800-500-`classes`; 431,080 parameters.

    [N, 1, 28, 28] to logits [N, classes]. As in Caffe, ReLU is in `dense` only.
    """
    network = Network(
        MNIST_IMAGE,
        features=nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten()
        ),
        dense=nn.Sequential(nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, classes)),
    )
    return initialised(network, generator)
