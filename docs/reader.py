"""The reader whose network the Python blocks of the documents are about, so that they can be run as they stand.

python docs/reader.py README.md docs/faq.md
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from blocks import blocks
from torch import Tensor, nn

from compress.remove.pruner import Pruner


class Example(nn.Module):
    """The reader's own network, with the layers that the documents name."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 128)
        self.latent = nn.Linear(128, 64)
        self.decoder = nn.Sequential(nn.Tanh(), nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 6))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.decoder(self.latent(self.fc(x).tanh()))
        return result


def given() -> dict[str, Any]:
    """The names that a reader is taken to have: a network, its data, and what it is trained with."""
    torch.manual_seed(0)
    model = Example()
    data = torch.randn(60, 6)
    return {
        "torch": torch,
        "Tensor": Tensor,
        "model": model,
        "normed": nn.Sequential(nn.BatchNorm1d(6), model),
        "build": Example,
        "loader": [(rows, rows) for rows in data.view(6, 10, 6)],
        "example": data[:2],
        "loss": F.mse_loss,
        "optimizer": torch.optim.AdamW(model.parameters()),
    }


def finish(pruner: Pruner) -> None:
    """The rest of the loop, where a block says that it is the one above."""
    while not pruner.removed:
        pruner.step()
    pruner.finalize()


def main(pages: list[str]) -> None:
    """Run the Python blocks of each page, one after the other with the same names."""
    for page in map(Path, pages):
        names = given()
        for block in blocks(page, "python"):
            exec(compile(block.text, str(page), "exec"), names)
            if "pruner" in names:
                finish(names["pruner"])
        print(f"{page}: {len(blocks(page, 'python'))} blocks of Python have run")


if __name__ == "__main__":
    main(sys.argv[1:])
