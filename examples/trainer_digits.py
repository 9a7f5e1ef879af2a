"""A small vision transformer of transformers learns digits with the Trainer, and its hidden nodes are halved.

Install:  pip install 'softprune[transformers,sample]'
Run:      python examples/trainer_digits.py          (--quick: fewer epochs)
Expect:   47,978 parameters become 35,562; 92.4 % of the test digits are right before, and 94.0 % after pruning,
          which trains on for four epochs. 24 s on one core.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the network is built from its configuration: nothing to download

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import compress
from compress.data import sources
from compress.graph.coupling import couplings
from compress.loops.pruning import Loop
from compress.loops.trainer_callback import TrainerPruning

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
    """One tensor in, one tensor out, as slim and export want it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images).logits
        return logits


def half_of_the_hidden_nodes(model: nn.Module, loop: Loop) -> compress.SoftPruner:
    """In each block, the half of the wide layer's nodes that has the smaller weights goes over two epochs."""
    wrapped, keep = Logits(model), {}
    known = couplings(wrapped, EXAMPLE)
    for block in range(CONFIG.num_hidden_layers):
        wide = f"vit.layers.{block}.mlp.fc1"
        norms = model.get_submodule(wide).weight.norm(dim=1)
        masks = known.of(f"model.{wide}").masks(wrapped, norms > norms.median())
        keep |= {name.removeprefix("model."): mask for name, mask in masks.items()}
    return compress.SoftPruner(model, list(keep), keep=list(keep.values()), steps=loop.steps("2 epochs"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/trainer_digits"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    data = sources.mnist_sample()
    train, test = (next(iter(data.batches(part, 4000, "classify")())) for part in ("train", "test"))
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(*train, strict=True)]
    model = ViTForImageClassification(CONFIG)

    def fit(epochs: int, callbacks: list[TrainerPruning]) -> None:
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
    fit(2 if options.quick else 4, [TrainerPruning(half_of_the_hidden_nodes)])
    report("pruned", Logits(model), test)
    small = compress.slim(Logits(model).eval(), EXAMPLE)  # raises unless small(x) == model(x)
    report("slim", small, test)
    compress.export.onnx(small, options.out / "small.onnx", EXAMPLE)
    print(f"{options.out / 'small.onnx'}: {(options.out / 'small.onnx').stat().st_size:,} bytes")


def report(name: str, model: nn.Module, test: tuple[Tensor, Tensor]) -> None:
    images, labels = test
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(1) == labels).float().mean()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name:6} {parameters:8,} parameters, {accuracy:.1%} of the test digits right")


if __name__ == "__main__":
    main()
