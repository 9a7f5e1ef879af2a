"""A trained network in the cache is that of its key, to the last bit, or absent."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.files.checkpoint import write_weights
from compress.paper import networks
from compress.paper.networks import keep_trained, load_trained


def net() -> nn.Module:
    return nn.Linear(3, 2)


def test_what_was_kept_is_loaded(tmp_path: Path) -> None:
    trained, fresh, path = net(), net(), tmp_path / "networks" / "a.safetensors"
    assert not load_trained(fresh, path, "a")
    keep_trained(trained, path, "a")
    assert load_trained(fresh, path, "a")
    assert torch.equal(fresh.weight, trained.weight)


@pytest.mark.parametrize(
    "harm", ["a weight", "cut", "empty", "another key", "another version", "no note", "pipe", "link"]
)
def test_anything_else_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    path, key = tmp_path / "a.safetensors", "a"
    keep_trained(net(), path, key)
    content = path.read_bytes()
    match harm:
        case "a weight":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            path.write_bytes(content[:-3])
        case "empty":
            path.write_bytes(b"")
        case "another key":
            key = "b"
        case "another version":
            monkeypatch.setattr(networks, "__version__", "9.9")
        case "no note":
            write_weights(net().state_dict(), path)
        case "pipe":
            path.unlink()
            os.mkfifo(path)
        case _:
            path.rename(tmp_path / "elsewhere.safetensors")
            path.symlink_to("elsewhere.safetensors")
    fresh = net()
    before = fresh.weight.detach().clone()
    assert not load_trained(fresh, path, key)
    assert torch.equal(fresh.weight, before)
