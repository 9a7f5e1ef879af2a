"""A small network learns digits with Lightning, and half of its hidden nodes fade away while it does.

Install:  pip install 'softprune[lightning,sample]'
Run:      python examples/lightning_digits.py          (--quick: fewer epochs)
Expect:   101,770 parameters become 50,890; 92.8 % of the test digits are right before, and 94.3 % after pruning,
          which trains on for four epochs. 11 s on one core.
"""

import argparse
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compress
from compress.data import sources
from compress.graph.coupling import couplings
from compress.loops.lightning_callback import LightningPruning
from compress.loops.pruning import Loop

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


def half_of_the_nodes(model: nn.Module, loop: Loop) -> compress.SoftPruner:
    """The half of the hidden nodes that has the smaller weights goes over two epochs."""
    nodes = couplings(model, EXAMPLE).of("net.1")
    norms = model.get_parameter("net.1.weight").norm(dim=1)
    masks = nodes.masks(model, norms > norms.median())
    return compress.SoftPruner(model, list(masks), keep=list(masks.values()), steps=loop.steps("2 epochs"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/lightning_digits"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    lightning.seed_everything(0)
    data = sources.mnist_sample()
    train, test = (next(iter(data.batches(part, 4000, "classify")())) for part in ("train", "test"))
    loader = DataLoader(TensorDataset(*train), batch_size=64, shuffle=True)

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
    fit(model, 2 if options.quick else 4, [LightningPruning(half_of_the_nodes)])
    report("pruned", model, test)
    small = compress.slim(model.net, EXAMPLE)  # raises unless small(x) == net(x)
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
