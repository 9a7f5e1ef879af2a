from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import compress
from compress.errors import CheckpointError, InputError
from compress.export.contents import inspect
from compress.files.checkpoint import read_weights
from compress.graph.stats import measure
from compress.models import row_lstm, vision_transformer
from compress.report.files import summary


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
        "zero_rows": 0,
        "zero_columns": 0,
    }
    assert found["entries"] == sum(tensor["entries"] for tensor in found["tensors"])
    assert found["zeros"] == sum(tensor["zeros"] for tensor in found["tensors"])
    notes = {"safetensors": {"recipe", "shape_edits"}, "onnx": {"recipe"}, "pt2": set()}[suffix]
    assert found["metadata"].keys() == {*notes, "contract"}


def test_a_state_dict_with_masks_counts_as_folded(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    compress.Pruner(model, ["0.weight"], sparsity=0.25)
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
        ("x.safetensors", CheckpointError, "x.safetensors is damaged or not a safetensors file"),
        ("x.onnx", InputError, "x.onnx cannot be read as an ONNX model"),
        ("x.pt2", InputError, "x.pt2 cannot be read as an exported program"),
        ("x.txt", InputError, "x.txt ends in '.txt': known are .pt, .pth, .ckpt, .bin, .safetensors, .onnx and .pt2"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, name: str, error: type[InputError], text: str) -> None:
    (tmp_path / name).write_bytes(b"this is just some text, and it is not short")
    with pytest.raises(error, match=text):
        inspect(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} does not exist"):
        inspect(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} is a folder"):
        inspect(tmp_path / name)


# --- layers, multiply-adds and nodes ---


def layer(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [layer for layer in found["layers"] if layer["name"] == name]
    return one


def convolutions() -> nn.Module:
    """Strides, groups, a transposed convolution and a norm: 2 channels of 8 x 8 pixels in."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding=1),  # 8 x 4 x 4
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # 4 x 8 x 8
        nn.Flatten(),
        nn.Linear(256, 10),
    ).eval()


MACS = {"0": 8 * 16 * 2 * 9, "3": 8 * 16 * 2 * 9, "4": 8 * 16 * 4 * 4, "6": 256 * 10}


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_multiply_adds_by_hand(tmp_path: Path, suffix: str) -> None:
    example, path = torch.randn(2, 2, 8, 8), tmp_path / f"model.{suffix}"
    (compress.export.onnx if suffix == "onnx" else compress.export.pt2)(convolutions(), path, example)
    found = inspect(path, trusted=True)
    assert {one["name"]: one["macs"] for one in found["layers"] if "macs" in one} == MACS
    assert found["macs"] == sum(MACS.values())


@pytest.mark.extended
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_multiply_adds_of_attention(tmp_path: Path, suffix: str) -> None:
    """Two blocks on 4 patches of 16 pixels, by hand: the projections, both hidden layers, and attention itself."""
    model = vision_transformer((1, 8, 8), 4, 16, 2, 2, 32, 3).eval()
    example, path = torch.randn(2, 1, 8, 8), tmp_path / f"model.{suffix}"
    (compress.export.onnx if suffix == "onnx" else compress.export.pt2)(model, path, example)
    block = 4 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * 4 * 4 * 16
    assert inspect(path, trusted=True)["macs"] == measure(model, example).macs == 4 * 16 * 16 + 2 * block + 16 * 3


@pytest.mark.extended
def test_multiply_adds_of_a_recurrent_layer(tmp_path: Path) -> None:
    """Six rows of six pixels, five states, four gates. ONNX has an operator for it that is not counted: no figure."""
    model, example = row_lstm((1, 6, 6), 5, 1, 3), torch.randn(2, 1, 6, 6)
    compress.export.pt2(model, tmp_path / "model.pt2", example)
    compress.export.onnx(model, tmp_path / "model.onnx", example)
    found = inspect(tmp_path / "model.pt2", trusted=True)
    assert layer(found, "lstm")["macs"] == 6 * 4 * 5 * (6 + 5)
    assert found["macs"] == 6 * 4 * 5 * (6 + 5) + 5 * 3
    assert "macs" not in inspect(tmp_path / "model.onnx")


def test_zero_rows_and_columns(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].weight[:, :2] = 0
        model[0].bias[2] = 0
        model[1].weight[:, 1] = 0
    torch.save(model.state_dict(), tmp_path / "model.pt")
    found = inspect(tmp_path / "model.pt")
    first, second = layer(found, "0"), layer(found, "1")
    assert first == {
        "name": "0",
        "tensors": ["0.weight", "0.bias"],
        "shape": [3, 4],
        "entries": 15,
        "zeros": 4 + 4 + 1,
        "weights": 12,
        "rows": 3,
        "zero_rows": 1,
        "columns": 4,
        "zero_columns": 2,
    }
    assert (second["zero_rows"], second["zero_columns"], second["zeros"]) == (0, 1, 5)
    assert "macs" not in found
    assert "nodes" not in found


def test_a_norms_statistics_are_in_its_layer(tmp_path: Path) -> None:
    torch.save(convolutions().state_dict(), tmp_path / "model.pt")
    found = inspect(tmp_path / "model.pt")
    assert [one["name"] for one in found["layers"]] == ["0", "1", "3", "4", "6"]
    assert layer(found, "1")["tensors"] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert layer(found, "1")["weights"] == 0


def test_nodes_of_a_program(tmp_path: Path) -> None:
    model = convolutions()
    with torch.no_grad():
        model.get_parameter("6.weight")[:, 64:128] = 0  # what reads the second of four channels of 8 x 8
    compress.export.pt2(model, tmp_path / "model.pt2", torch.randn(2, 2, 8, 8))
    nodes = inspect(tmp_path / "model.pt2", trusted=True)["nodes"]
    assert {one["name"]: (one["nodes"], one["cuttable"]) for one in nodes["prunable"]}["4"] == (4, 1)
    assert nodes["kept"] == [{"layer": "6", "reason": "it is the network's output"}]


def test_a_program_that_does_not_run_is_told_of_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("no kernel image")

    compress.export.pt2(convolutions(), tmp_path / "model.pt2", torch.randn(2, 2, 8, 8))
    monkeypatch.setattr("compress.graph.stats.measure", fails)
    found = inspect(tmp_path / "model.pt2", trusted=True)
    assert found["note"] == "no kernel image"
    assert "macs" not in found
    assert layer(found, "6")["entries"] == 2570


def test_a_graph_that_is_not_understood_is_told_of_without(tmp_path: Path) -> None:
    """A matrix product that lacks an operand, which no checker has seen."""
    weight = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [onnx.helper.make_tensor_value_info("y", 1, [3, 3])], [weight])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    found = inspect(tmp_path / "model.onnx")
    assert "macs" not in found
    assert found["note"].startswith("its multiply-adds do not follow from its graph: ")
    assert layer(found, "w")["zeros"] == 6


def test_a_file_of_weights_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def counted(path: Path) -> Any:
        reads.append(path)
        return read_weights(path)

    monkeypatch.setattr("compress.export.contents.read_weights", counted)
    torch.save({"x": torch.ones(2)}, tmp_path / "model.pt")
    inspect(tmp_path / "model.pt")
    assert len(reads) == 1


def test_a_program_is_not_loaded_unless_it_is_trusted(applied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = inspect(applied / "slim.pt2", trusted=True)
    assert {"macs", "nodes"} <= trusted.keys()
    monkeypatch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("it was loaded"))
    found = inspect(applied / "slim.pt2")
    assert not {"macs", "nodes"} & found.keys()
    assert "torch.export.load may run code from the file; where you trust it, load it with --trust" in found["note"]
    assert found["tensors"] == trusted["tensors"]


def test_types_that_torch_does_not_count_in(tmp_path: Path) -> None:
    rare = (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64)
    state = {str(dtype): torch.tensor([[0, 1], [0, 2.0]]).to(dtype) for dtype in rare}
    torch.save(state, tmp_path / "w.pt")
    assert [tensor["zeros"] for tensor in inspect(tmp_path / "w.pt")["tensors"]] == [2] * len(rare)


def test_a_training_checkpoint_shows_its_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = nn.Linear(6, 5).state_dict()
    torch.save({"model_state_dict": state, "epoch": 5}, tmp_path / "w.pt")
    assert inspect(tmp_path / "w.pt")["entries"] == 6 * 5 + 5
    torch.save({"ema": nn.Linear(9, 5).state_dict(), "model": state}, tmp_path / "w.ckpt")
    with caplog.at_level("INFO", "compress"):
        assert inspect(tmp_path / "w.ckpt")["entries"] == 6 * 5 + 5
    assert caplog.messages[-1].endswith('took the weights under "model"; left out 1 other: ema')
    assert inspect(f"{tmp_path}/w.ckpt#ema")["entries"] == 9 * 5 + 5


def test_branches_of_a_program(tmp_path: Path) -> None:
    """Of three blocks, the end of the second is zero, and the third has a projection beside it."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(4, size) for size in (4, 4, 6))
            self.projection, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.first(x).relu()
            x = x + self.second(x)
            found: torch.Tensor = self.head(self.third(x) + self.projection(x))
            return found

    model = Residual()
    nn.init.zeros_(model.second.weight)
    nn.init.zeros_(model.second.bias)
    compress.export.pt2(model, tmp_path / "model.pt2", torch.randn(2, 4))
    branches = inspect(tmp_path / "model.pt2", trusted=True)["branches"]
    assert (branches["prunable"], branches["zero"]) == (["first", "second"], ["second"])
    lines = list(summary(inspect(tmp_path / "model.pt2", trusted=True)))
    assert "residual branches that can be pruned: first, second" in lines
    assert "residual branches that slim would take out now: second" in lines
