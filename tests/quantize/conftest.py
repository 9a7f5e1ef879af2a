"""Small trained-like networks with the data that they see, and short timings."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compress.export
from compress.quantize import choosing


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.02)


class Words(nn.Module):
    """Takes token ids and a mask by keyword, and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 32), nn.Linear(32, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = (self.words(ids) * mask.unsqueeze(-1)).sum(1)
        return {"hidden": hidden, "logits": self.head(hidden.tanh())}


class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.lstm(x)[0][:, -1])
        return found


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 5)).eval()


def images(count: int = 4, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count * size, 3, 8, 8, generator=generator)
    with torch.no_grad():
        return list(zip(inputs.split(size), convolutional()(inputs).argmax(1).split(size), strict=True))


def vectors(count: int = 4, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count * size, 64, generator=generator)
    with torch.no_grad():
        return list(zip(inputs.split(size), dense()(inputs).argmax(1).split(size), strict=True))


@pytest.fixture(scope="session")
def dense_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dense") / "dense.onnx"
    compress.export.onnx(dense(), path, torch.zeros(2, 64))
    return path


