"""Networks of Linear layers for the rows of a table: one that predicts, and an autoencoder.

Weights are Xavier-uniform and biases zero, drawn from `generator` or, without one, from torch's global generator.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from compress.models.paper import Network, initialised


def mlp(
    inputs: int, hidden: Sequence[int] = (64, 64), outputs: int = 2, *, generator: torch.Generator | None = None
) -> Network:
    """`inputs`-`hidden`-`outputs` with ReLU between; the layers are in `dense`.

    [N, inputs] to [N, outputs]: values, or logits of classes or labels.
    """
    return initialised(Network((inputs,), dense=nn.Sequential(*_dense(inputs, *hidden, outputs))), generator)


def mlp_autoencoder(
    inputs: int, hidden: Sequence[int] = (64, 32), latent: int = 8, *, generator: torch.Generator | None = None
) -> Network:
    """`inputs`-`hidden`-`latent` and back, with ReLU after every `hidden` layer; the layer `latent` is linear.

    [N, inputs] to the same shape; parts `encoder`, `latent` and `decoder`.
    """
    network = Network(
        (inputs,),
        encoder=nn.Sequential(*_dense(inputs, *hidden), nn.ReLU()),
        latent=nn.Linear(hidden[-1], latent),
        decoder=nn.Sequential(*_dense(latent, *reversed(hidden), inputs)),
    )
    return initialised(network, generator)


def _dense(*widths: int) -> list[nn.Module]:
    """Linear layers of these widths with a ReLU after each but the last."""
    layers: list[nn.Module] = [layer for ends in pairwise(widths) for layer in (nn.Linear(*ends), nn.ReLU())]
    return layers[:-1]
