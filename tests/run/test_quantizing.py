"""`compress quantize`, and int8 of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import Result

import compress
from compress.errors import CheckpointError
from compress.quantize import choosing

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.02)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Classifies vectors of 64: two layers and a ReLU."""
    rng = np.random.default_rng(0)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 64), ("y", 5))
    ]
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("first", (64, 128)), ("last", (128, 5)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], name="one"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "last"], ["y"], name="two"),
    ]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], weights)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def arrays(path: Path, **changed: Any) -> Path:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((600, 64)).astype(np.float32)
    held = {"x": x, "labels": rng.integers(0, 5, 600), **changed}
    np.savez(path, **{name: array for name, array in held.items() if array is not None})
    return path


def test_a_file_and_arrays_give_int8(run: Run, tmp_path: Path, file: Path) -> None:
    data = arrays(tmp_path / "data.npz")
    found = json.loads(run("quantize", file, "--data", data, "--kind", "dynamic", "--max-drop", 50, "--json").stdout)
    assert found["file"] == str(tmp_path / "net.int8.onnx")
    assert found["bytes"] == (tmp_path / "net.int8.onnx").stat().st_size < 0.5 * found["source_bytes"]
    assert found["agreement"]["equal"] > 0.9
    assert found["quantization"]["float_metric"].keys() == {"loss", "accuracy"}
    shown = run("quantize", file, "--data", data, "--kind", "dynamic", "--max-drop", 50, "--force", "--exclude", "two")
    assert "It is not equal to the float file" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("next: compress bench")
    refused = run("quantize", file, "--data", data, "--kind", "dynamic", "--max-drop", 50, code=2)
    assert "replace it with --force" in refused.stderr


def test_without_labels_outputs_are_compared_and_a_refusal_is_a_warning(run: Run, tmp_path: Path, file: Path) -> None:
    data = arrays(tmp_path / "data.npz", labels=None)
    for strict, code in (((), 0), (("--strict",), 1)):
        result = run("quantize", file, "--data", data, "--max-drop", 0, "--json", *strict, code=code)
        assert "warning: the float file is kept, because every kind of int8 loses more than 0 %" in result.stderr
        assert json.loads(result.stdout)["quantization"]["float_metric"] == {"loss": 0.0}
    assert not (tmp_path / "net.int8.onnx").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": np.full((9, 64), np.nan, np.float32), "labels": np.zeros(9, int)}, "x has NaN or infinite values"),
        ({"x": np.zeros((0, 64), np.float32), "labels": np.zeros(0, int)}, "no sample"),
        ({"images": np.zeros((3, 64), np.float32)}, "name the arrays after its inputs"),
        ({"x": np.zeros((600, 63), np.float32)}, r"has the shape [250, 63]"),
        ({"x": np.zeros((600, 64), np.uint8)}, "x holds uint8, and the file takes tensor(float)"),
        ({"labels": np.zeros((600, 2), int)}, "labels are int64 of shape [600, 2]"),
        ({"labels": np.zeros(3, int)}, "different numbers of samples (x 600, labels 3)"),
        ({"labels": np.full(600, 5)}, "the model has only the classes 0 to 4"),
    ],
)
def test_arrays_that_do_not_fit(run: Run, tmp_path: Path, file: Path, changed: dict[str, Any], said: str) -> None:
    result = run("quantize", file, "--data", arrays(tmp_path / "data.npz", **changed), code=2)
    assert said in result.stderr
    assert not (tmp_path / "net.int8.onnx").exists()


@pytest.mark.extended
def test_a_recipe_gives_the_data_and_the_task(run: Run, tmp_path: Path, recipe: Path) -> None:
    """A recipe's batches fit the file that `compress export` writes."""
    run("train", recipe, "-o", tmp_path / "m.pt", "--set", "train.epochs=1")
    run("export", tmp_path / "m.pt", "--recipe", recipe, "-o", tmp_path / "f", "--format", "onnx")
    onnx_file = tmp_path / "f" / "model.onnx"
    result = run("quantize", onnx_file, "--data", recipe, "--max-drop", 1000, "--samples", 20, "--json")
    found = json.loads(result.stdout)
    assert found["quantization"]["float_metric"].keys() == {"loss"}
    assert "% of the loss" in found["quantization"]["why"]


def test_an_int8_file_is_not_pruned(run: Run, tmp_path: Path, file: Path, recipe: Path) -> None:
    made = tmp_path / "net.int8.onnx"
    run("quantize", file, "--data", arrays(tmp_path / "data.npz"), "--kind", "dynamic", "--max-drop", 50)
    assert "is quantized already" in run("quantize", made, "--data", tmp_path / "data.npz", code=2).stderr
    assert "note: it is quantized, and not equal" in run("inspect", made).stdout
    for words in (("apply", recipe, made), ("plan", recipe, made), ("export", made, "--recipe", recipe, "-o", "out")):
        assert "is an ONNX file, not a file of weights" in run(*words, code=2).stderr
    with pytest.raises(CheckpointError, match="is an ONNX file, which only runs"):
        compress.load(made, model=lambda: torch.nn.Linear(1, 1))
