"""Which candidate is kept, and the sentence that says why, from made-up bytes, metrics and times."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ProofError, UnsupportedModelError
from compress.export.latency import Timings
from compress.quantize import candidates, choosing
from compress.quantize.choosing import Quantized, quantize
from compress.quantize.settings import Quantization
from compress.ranking import default_of, drop

FEED = {"x": np.zeros((4, 8), np.float32)}


def multiply(path: Path, columns: int) -> None:
    """A file of about 32 * columns bytes."""
    shapes = [("x", ["batch", 8]), ("y", ["batch", columns])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    weight = numpy_helper.from_array(np.ones((8, columns), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


class Made:
    """Candidates with these accuracies and times (of the float file's), of a quarter of its bytes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.accuracy, self.times = folder, dict[str, float](), dict[str, float]()
        self.columns = 250
        multiply(folder / "float.onnx", 1000)
        monkeypatch.setattr(
            candidates, "static", lambda prepared, out, samples, method, channels: self._make(out, method)
        )
        monkeypatch.setattr(candidates, "dynamic", lambda prepared, out, channels: self._make(out, "dynamic"))
        monkeypatch.setattr(choosing.latency, "measure", self._measured)

    def _make(self, out: Path, name: str) -> None:
        if name not in self.accuracy:
            raise UnsupportedModelError(f"onnxruntime cannot make {name} of it: it says no")
        multiply(out, self.columns)

    def _measured(self, files: Mapping[str, Path], **_: Any) -> Timings:
        times: dict[tuple[str, int], NDArray[np.float64]] = {
            (name, 1): np.full((5, 2), self.times.get(name, 1.0)) for name in files
        }
        return Timings(1, times)

    def _metric(self, path: Path) -> dict[str, float]:
        kind, _, method = path.stem.partition("-")
        accuracy = {"float": 0.9, **self.accuracy}[method if method not in ("", "None") else kind]
        return {"loss": 1.0, "accuracy": accuracy}

    def quantized(self, **settings: Any) -> Quantized:
        source = self.folder / "float.onnx"
        return quantize(source, self.folder / "int8.onnx", lambda: [FEED], Quantization(**settings), self._metric)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(tmp_path, monkeypatch)


def test_the_fastest_within_the_bound_is_kept(made: Made) -> None:
    made.accuracy = {"minmax": 0.898, "dynamic": 0.9}
    made.times = {"static (minmax)": 0.5, "dynamic": 0.8}
    found = made.quantized()
    assert found.path is not None
    assert found.path.exists()
    assert found.why == (
        "static (minmax) is the fastest within 0.5 points of accuracy: 0.50 of the float file's time, 0.25 of its "
        "bytes, -0.20 points of accuracy; dynamic: 0.80 of the float file's time, 0.25 of its bytes, +0.00 points of "
        "accuracy"
    )
    assert [trial["kind"] for trial in found.entry["tried"]] == ["static", "dynamic"]


def test_other_methods_are_tried_where_the_first_loses_too_much(made: Made) -> None:
    made.accuracy = {"minmax": 0.8, "percentile": 0.89, "entropy": 0.899, "dynamic": 0.9}
    made.times = {f"static ({method})": 0.5 for method in ("minmax", "percentile", "entropy")}
    assert made.quantized().entry["method"] == "entropy"
    assert made.quantized(kind="static").path is None  # only what was asked for


def test_a_slow_candidate_is_kept_only_where_its_kind_was_asked_for(made: Made) -> None:
    made.accuracy = {"dynamic": 0.9}
    made.times = {"dynamic": 12.0}
    found = made.quantized()
    assert found.refused is not None
    assert "every kind of int8 within 0.5 points of accuracy is slower, or hardly faster or smaller" in found.refused
    assert "static (minmax): onnxruntime cannot make minmax of it: it says no" in found.refused
    assert "12.00 of the float file's time" in found.refused
    assert not (made.folder / "int8.onnx").exists()
    asked = made.quantized(kind="dynamic")
    assert asked.path is not None
    assert asked.why.startswith("dynamic is the kind that was asked for, and within 0.5 points of accuracy")


def test_one_that_is_neither_smaller_nor_faster_is_not_kept(made: Made) -> None:
    made.accuracy, made.columns = {"dynamic": 0.9}, 990
    assert made.quantized().path is None
    assert made.quantized(kind="dynamic").path is None


def test_a_failure_of_all_is_no_crash(made: Made) -> None:
    found = made.quantized()
    assert found.refused is not None
    assert found.refused.startswith("the float file is kept, because no kind of int8 can be made of it")
    assert all("says no" in trial["note"] for trial in found.entry["tried"])


def test_another_file_in_a_fresh_process_is_an_error(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.export import reading_back

    made.accuracy, made.times = {"dynamic": 0.9}, {"dynamic": 0.5}
    at_home = reading_back.run_stranger

    def meddled(folder: Path, room: int, seconds: float) -> str:
        said = at_home(folder, room, seconds)
        np.savez(folder / "0-0.npz", **{"0": np.ones((4, 250), np.float32)})
        return said

    monkeypatch.setattr(reading_back, "run_stranger", meddled)
    with pytest.raises(ProofError, match=r"int8\.onnx computes something else in a fresh process"):
        made.quantized()
    assert not (made.folder / "int8.onnx").exists()


@pytest.mark.fresh_process
def test_a_fresh_process_agrees(made: Made) -> None:
    made.accuracy, made.times = {"dynamic": 0.9}, {"dynamic": 0.5}
    assert made.quantized().path is not None


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ({"loss": 1.0, "accuracy": 0.9}, {"loss": 5.0, "accuracy": 0.89}, 1.0),
        ({"loss": 0.02}, {"loss": 0.021}, 5.0),
        ({"loss": -2.0}, {"loss": -1.9}, 5.0),
        ({"loss": 0.0}, {"loss": 0.01}, 1.0),
    ],
)
def test_what_is_lost_is_points_of_accuracy_or_percent_of_the_loss(
    before: dict[str, float], after: dict[str, float], lost: float
) -> None:
    assert drop(before, after, default_of(before)) == pytest.approx(lost)
    assert drop(before, before, default_of(before)) == 0


def test_a_link_is_not_replaced(made: Made) -> None:
    from compress.errors import OutputError

    shutil.copy(made.folder / "float.onnx", made.folder / "target.onnx")
    (made.folder / "int8.onnx").symlink_to(made.folder / "target.onnx")
    with pytest.raises(OutputError, match="is a link"):
        made.quantized()
