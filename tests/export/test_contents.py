from pathlib import Path
from typing import Any

import pytest
import torch

from compress.errors import CheckpointError, InputError
from compress.export.contents import inspect
from compress.remove.hard import HardPruner


def entry(found: dict[str, Any], name: str) -> dict[str, Any]:
    (tensor,) = [tensor for tensor in found["tensors"] if tensor["name"] == name]
    return tensor


@pytest.mark.parametrize("suffix", ["safetensors", "onnx", "pt2"])
def test_the_slim_network_in_each_of_its_files(applied: Path, results: dict[str, Any], suffix: str) -> None:
    file = applied / f"slim.{suffix}"
    found = inspect(file)
    assert (found["file"], found["format"], found["bytes"]) == (str(file), suffix, file.stat().st_size)
    slim = results["models"]["slim"]
    weights = [tensor for tensor in found["tensors"] if tensor["dtype"] == "float32"]
    assert sum(tensor["entries"] for tensor in weights) == slim["params"]
    assert sum(tensor["entries"] - tensor["zeros"] for tensor in weights) == slim["nonzero"]
    assert entry(found, "latent.weight") == {
        "name": "latent.weight",
        "shape": [2, 128],
        "dtype": "float32",
        "entries": 256,
        "zeros": 0,
    }
    assert found["entries"] == sum(tensor["entries"] for tensor in found["tensors"])
    assert found["zeros"] == sum(tensor["zeros"] for tensor in found["tensors"])
    assert (
        found["metadata"].keys() == {"safetensors": {"recipe", "shape_edits"}, "onnx": {"recipe"}, "pt2": set()}[suffix]
    )


def test_a_state_dict_with_masks_counts_as_folded(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    HardPruner(model, ["0.weight"], 0.25)
    for name in ("model.pt", "model.pth"):
        torch.save(model.state_dict(), tmp_path / name)
        found = inspect(str(tmp_path / name))
        assert entry(found, "0.weight")["zeros"] == 3
        assert entry(found, "1.num_batches_tracked") == {
            "name": "1.num_batches_tracked",
            "shape": [],
            "dtype": "int64",
            "entries": 1,
            "zeros": 1,
        }
        assert [tensor for tensor in found["tensors"] if "mask" in tensor["name"]] == []


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("x.pt", CheckpointError, "x.pt is damaged or was not written by torch.save"),
        ("x.safetensors", CheckpointError, "x.safetensors is damaged or no safetensors file"),
        ("x.onnx", InputError, "x.onnx cannot be read as an ONNX model"),
        ("x.pt2", InputError, "x.pt2 cannot be read as an exported program"),
        ("x.txt", InputError, "x.txt ends in '.txt': known are .pt, .pth, .safetensors, .onnx and .pt2"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, name: str, error: type[InputError], text: str) -> None:
    (tmp_path / name).write_bytes(b"this is just some text, and it is not short")
    with pytest.raises(error, match=text):
        inspect(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is no file"):
        inspect(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} is a folder"):
        inspect(tmp_path / name)
