"""A run's choices: what is made, measured and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import Result

from compress.models import classifier as new_classifier
from compress.quantize import choosing
from compress.sparsify import timing

Run = Callable[..., Result]

CLASSIFIER = """\
name: tiny_choices
model: {name: classifier, image: [1, 6, 6], classes: 3}
data: {npz: NPZ, batch_size: 20}
task: classify
stages:
  - {target: {weights: ["dense.*"]}, criterion: magnitude, sparsity: 0.9, removal: hard}
export: [onnx, int8, sparse]
quantize: {kind: static, max_drop: 100, calibration: {samples: 20}}
benchmark: {batch_sizes: [2, 5]}
"""


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for milliseconds instead of seconds."""
    monkeypatch.setattr(choosing, "_SECONDS", 0.01)
    monkeypatch.setattr(timing, "_SECONDS", 0.01)


@pytest.fixture
def classifier(npz: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A recipe, and a network whose weights are large enough for int8 to be smaller."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(CLASSIFIER.replace("NPZ", json.dumps(str(npz))), encoding="utf-8")
    torch.save(new_classifier((1, 6, 6), 3).state_dict(), tmp_path / "model.pt")
    return recipe, tmp_path / "model.pt"


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.extended
def test_every_choice_is_made_and_measured(run: Run, classifier: tuple[Path, Path], npz: Path, tmp_path: Path) -> None:
    run("apply", *classifier, "-o", tmp_path / "out", "--strict")
    results = read(tmp_path / "out")
    choices = results["choices"]
    assert list(choices) == ["dense", "dense_int8", "slim", "slim_int8", "sparse"]
    assert {name: choice.get("file") for name, choice in choices.items()} == {
        "dense": None,
        "dense_int8": None,
        "slim": "slim.onnx",
        "slim_int8": "slim.int8.onnx",
        "sparse": "slim.sparse.safetensors",
    }
    for name, choice in choices.items():
        assert list(choice["latency_ms"]) == ["2", "5"]
        assert choice["runtime"] == ("torch" if name == "sparse" else "onnxruntime")
        if "file" in choice:
            assert choice["bytes"] == (tmp_path / "out" / choice["file"]).stat().st_size
    assert choices["slim_int8"]["bytes"] < 0.5 * choices["slim"]["bytes"]
    assert choices["sparse"]["bytes"] < 0.5 * choices["slim"]["bytes"]
    assert list(choices["sparse"]["torch_dense_latency_ms"]) == ["2", "5"]
    assert choices["slim"]["metric"] == results["models"]["slim"]["metric"]
    assert choices["sparse"]["metric"] == pytest.approx(results["models"]["slim"]["metric"], rel=1e-4)
    assert results["best"]["bound"] == "fastest at batch 2 within 100 points of dense's accuracy"
    assert "slim.sparse.safetensors" in results["parity"]["fresh_process"]
    assert "slim.int8.onnx" not in results["parity"]["fresh_process"]  # it is not equal to its network
    assert "refused" not in {one["kind"] for one in results["warnings"]}
    _require_figures_of_its_file(tmp_path / "out", results, npz)


def _require_figures_of_its_file(out: Path, results: dict[str, Any], npz: Path) -> None:
    """Metric and agreement of int8 are computed again with onnxruntime and numpy alone."""
    found, data = results["choices"]["slim_int8"], np.load(npz)
    images, labels = (data[key][-results["data"]["test"] :] for key in ("images", "labels"))
    mean, std = (np.reshape(results["data"][key], (-1, 1, 1)) for key in ("mean", "std"))
    batch = ((images.reshape(-1, 1, 6, 6) / 255 - mean) / std).astype(np.float32)
    int8, plain = (
        onnxruntime.InferenceSession(out / name).run(None, {"input": batch})[0]
        for name in ("slim.int8.onnx", "slim.onnx")
    )
    assert found["metric"]["accuracy"] == pytest.approx((int8.argmax(1) == labels).mean())
    assert found["agreement"]["equal"] == pytest.approx((int8.argmax(1) == plain.argmax(1)).mean())
    assert found["agreement"]["largest"] == pytest.approx(np.abs(int8 - plain).max(), rel=1e-3)
    assert found["agreement"]["mean"] == pytest.approx(np.abs(int8 - plain).mean(), rel=1e-3)


REFUSED = ("--set", "export=[onnx, int8]", "--set", "quantize.exclude=['*nowhere*']")


@pytest.mark.extended
def test_a_refusal_is_told_and_the_float_file_stays(run: Run, classifier: tuple[Path, Path], tmp_path: Path) -> None:
    shown = run("apply", *classifier, "-o", tmp_path / "out", *REFUSED)
    results = read(tmp_path / "out")
    refused = results["choices"]["slim_int8"]["refused"]
    assert "nowhere" in refused
    assert {"kind": "refused", "text": f"slim int8 was refused: {refused}"} in results["warnings"]
    assert "warning: slim int8 was refused: " in shown.stderr
    assert "refused" in shown.stdout
    assert "slim int8 was refused" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "slim.onnx").exists()
    assert not (tmp_path / "out" / "slim.int8.onnx").exists()
    assert results["best"]["choice"] in ("dense", "slim")


@pytest.mark.extended
def test_strict_ends_with_1_after_all_is_written(run: Run, classifier: tuple[Path, Path], tmp_path: Path) -> None:
    run("apply", *classifier, "-o", tmp_path / "out", "--strict", *REFUSED, code=1)
    assert (tmp_path / "out" / "report.html").exists()
