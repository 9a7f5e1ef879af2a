"""TorchScript archives are told from weights and from damaged files, whatever their suffix."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import Result

import compress
from compress.errors import CheckpointError
from compress.files.places import place

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")

NETWORKS = {
    "small": nn.Linear(2, 2),
    "of compressed code": nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pt2", ".safetensors", ".onnx", ".torchscript"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_scripted_network_is_told_with_the_way_out(network: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    torch.jit.script(NETWORKS[network]).save(str(path))  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointError, match=r"is a TorchScript archive.*torch\.jit\.load\(\"net.*state_dict\(\)"):
        place(path)
    with pytest.raises(CheckpointError, match="is a TorchScript archive"):
        compress.load(path, model=lambda: NETWORKS[network])


def test_the_commands_say_so(run: Callable[..., Result], recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    torch.jit.script(NETWORKS["small"]).save(str(path))  # type: ignore[no-untyped-call]
    for words in (("inspect", path), ("bench", path), ("quantize", path, "--data", recipe)):
        assert "is a TorchScript archive" in run(*words, code=2).stderr


def test_weights_and_other_archives_pass(tmp_path: Path) -> None:
    torch.save(NETWORKS["small"].state_dict(), tmp_path / "w.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 and no archive")
    for name in ("w.pt", "broken.pt"):
        assert place(tmp_path / name).file == tmp_path / name
