"""`compress.export.int8`: files that onnxruntime runs, of the kind that was asked for, close to their networks."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import compress.export
from compress.errors import DataError, InputError, UnsupportedModelError
from compress.inputs import Inputs
from compress.quantize import choosing
from compress.quantize.settings import Method
from compress.tasks import OwnTask, cross_entropy


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


@pytest.fixture(scope="module")
def dense_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dense") / "dense.onnx"
    compress.export.onnx(dense(), path, torch.zeros(2, 64))
    return path


@pytest.fixture(scope="module")
def convolutional_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("convolutional") / "convolutional.onnx"
    compress.export.onnx(convolutional(), path, torch.zeros(2, 3, 8, 8))
    return path


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.02)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def run(path: Path, **feed: Tensor) -> list[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: tensor.numpy() for name, tensor in feed.items()}))


def exactly(path: Path, **feed: Tensor) -> list[Any]:
    """As the file says: onnxruntime's sums of bytes saturate on processors without VNNI (docs/int8.md)."""
    return list(ReferenceEvaluator(str(path)).run(None, {name: tensor.numpy() for name, tensor in feed.items()}))


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_static_int8_of_convolutions_is_qdq_with_a_scale_for_each_channel(
    tmp_path: Path, convolutional_file: Path, method: Method
) -> None:
    data = images()
    made = compress.export.int8(
        convolutional_file, tmp_path / "x.onnx", None, data, kind="static", method=method, max_drop=100, samples=32
    )
    assert made.path == tmp_path / "x.onnx"
    assert (made.entry["kind"], made.entry["method"]) == ("static", method)
    assert f"static ({method})" in made.why
    graph = onnx.load(made.path).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(operators(made.path))
    shapes = [(list(tensor.dims), tensor.data_type) for tensor in graph.initializer]
    assert ([16, 16, 3, 3], TensorProto.INT8) in shapes
    assert ([16], TensorProto.FLOAT) in shapes
    assert max(len(name) for node in graph.node for name in node.output) <= len("output")
    (found,) = exactly(made.path, input=data[0][0])
    (wanted,) = run(convolutional_file, input=data[0][0])
    assert 0 < np.abs(found - wanted).max() < 0.2 * wanted.std()
    assert run(made.path, input=data[0][0][:1])[0].shape == (1, 5)  # any batch size


def test_dynamic_int8_leaves_convolutions_alone(tmp_path: Path, convolutional_file: Path) -> None:
    made = compress.export.int8(convolutional_file, tmp_path / "x.onnx", None, images(), kind="dynamic", max_drop=100)
    assert made.entry["tried"][0]["bytes"] > 0.8 * convolutional_file.stat().st_size
    assert made.path is not None
    found = [(len(tensor.dims), tensor.data_type) for tensor in onnx.load(made.path).graph.initializer]
    assert (4, TensorProto.FLOAT) in found
    assert (4, TensorProto.INT8) not in found


@pytest.mark.extended
def test_an_lstm_becomes_dynamic_and_auto_says_why(tmp_path: Path) -> None:
    data = [torch.randn(16, 6, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    made = compress.export.int8(Series().eval(), tmp_path / "x.onnx", data[0], data, kind="auto", max_drop=5)
    tried = {trial["kind"]: trial for trial in made.entry["tried"]}
    assert set(tried) == {"static", "dynamic"}
    assert tried["dynamic"]["bytes"] < 0.5 * tried["static"]["bytes"]
    assert all("latency_ms" in trial and "metric" in trial for trial in tried.values())


def test_token_ids_masks_and_an_own_task_of_a_dict(tmp_path: Path) -> None:
    model = Words().eval()
    generator = torch.Generator().manual_seed(0)
    data = []
    for _ in range(4):
        ids = torch.randint(50, (16, 5), generator=generator)
        call = {"ids": ids, "mask": torch.ones(16, 5)}
        data.append((call, model(**call)["logits"].argmax(1)))
    task = OwnTask(lambda output, target: cross_entropy(output["logits"], target))
    made = compress.export.int8(
        model, tmp_path / "x.onnx", data[0][0], data, task=task, kind="dynamic", max_drop=50, samples=16
    )
    assert made.path is not None
    hidden, logits = exactly(made.path, **data[0][0])
    wanted = model(**data[0][0])
    assert np.abs(logits - wanted["logits"].detach().numpy()).max() < 0.1
    assert hidden.shape == wanted["hidden"].shape
    assert made.entry["float_metric"]["loss"] == pytest.approx(
        np.mean([float(task.loss(model(**call).copy(), target).detach()) for call, target in data[1:]]), rel=1e-4
    )


def test_the_first_samples_calibrate_and_the_others_decide(tmp_path: Path, dense_file: Path) -> None:
    """The metric of the float file is that of the network on the batches after the first."""
    model = dense()
    noisy = [(x, torch.roll(labels, 1) if number else labels) for number, (x, labels) in enumerate(vectors())]
    made = compress.export.int8(
        dense_file, tmp_path / "x.onnx", None, noisy, task="classify", kind="dynamic", samples=16, max_drop=100
    )
    held = [(model(x).argmax(1) == labels).double().mean().item() for x, labels in noisy[1:]]
    assert made.entry["float_metric"]["accuracy"] == pytest.approx(np.mean(held))


def test_a_bound_that_nothing_holds_leaves_the_float_file(tmp_path: Path, dense_file: Path) -> None:
    made = compress.export.int8(dense_file, tmp_path / "x.onnx", None, vectors(), max_drop=0)
    assert made.path is None
    assert made.refused is not None
    assert "every kind of int8 loses more than 0 % of the loss" in made.refused
    assert not list(tmp_path.iterdir())
    # Other calibration cannot be slower, so that it is tried before static int8 is given up.
    methods = [trial.get("method") for trial in made.entry["tried"] if trial["kind"] == "static"]
    assert methods == ["minmax", "percentile", "entropy"]


@pytest.mark.parametrize("kind", ["static", "dynamic", "auto"])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_in_the_current_folder(
    tmp_path: Path,
    dense_file: Path,
    kind: Literal["static", "dynamic", "auto"],
    fails: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where onnxruntime's symbolic shapes fail, they leave the model there, and its data in a file of random name."""
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    def fail(shapes: Any, *_: object, **__: object) -> bool:
        shapes.run_ = False  # or else it tries again without end
        return False

    if fails:
        monkeypatch.setattr(SymbolicShapeInference, "_infer_impl", fail)
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    compress.export.int8(dense_file, tmp_path / "int8.onnx", batches=vectors(), kind=kind, max_drop=100)
    assert not list(here.iterdir())


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_excluded_nodes_stay_float(tmp_path: Path, dense_file: Path, kind: Literal["static", "dynamic"]) -> None:
    *_, last = (node.name for node in onnx.load(dense_file).graph.node if node.op_type == "Gemm")
    made = compress.export.int8(
        dense_file, tmp_path / "x.onnx", None, vectors(), kind=kind, exclude=[f"*{last[-8:]}"], max_drop=100
    )
    assert made.path is not None
    assert made.entry["excluded"] == [last]
    tensors = [tensor for tensor in onnx.load(made.path).graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert [sorted(tensor.dims) for tensor in tensors if len(tensor.dims) == 2] == [[5, 64]]


def test_an_unknown_pattern_names_the_nearest(tmp_path: Path, dense_file: Path) -> None:
    with pytest.raises(InputError, match=r"no node or operator is called 'Gem'; did you mean Gemm\?"):
        compress.export.int8(dense_file, tmp_path / "x.onnx", None, vectors(), exclude=["Gem"])


def gemm_of_opset(path: Path, opset: int) -> None:
    """A Gemm and a ReLU, in an old opset, of a fixed batch."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal(shape).astype("f"), name) for name, shape in WEIGHTS]
    nodes = [helper.make_node("Gemm", ["x.1", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x.1", [4, 64]), ("y", [4, 64]))
    ]
    graph = helper.make_graph(nodes, "old", shapes[:1], shapes[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)


WEIGHTS = (("w", (64, 64)), ("b", (64,)))


@pytest.mark.parametrize("opset", [9, 12])
def test_an_old_opset_is_raised_and_a_batch_may_be_fixed(tmp_path: Path, opset: int) -> None:
    gemm_of_opset(tmp_path / "old.onnx", opset)
    data = [Inputs((), {"x.1": torch.randn(4, 64)}) for _ in range(4)]
    made = compress.export.int8(tmp_path / "old.onnx", tmp_path / "x.onnx", None, data, kind="static", max_drop=100)
    assert made.path is not None
    assert onnx.load(made.path).opset_import[0].version >= 13
    assert list(made.entry["tried"][0]["latency_ms"]) == ["4"]


def test_external_data_are_taken_in(tmp_path: Path, dense_file: Path) -> None:
    onnx.save(
        onnx.load(dense_file), tmp_path / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0
    )
    made = compress.export.int8(
        tmp_path / "big.onnx", tmp_path / "x.onnx", None, vectors(), kind="static", max_drop=100
    )
    assert made.path is not None
    (tmp_path / "big.data").unlink()
    assert run(made.path, input=vectors()[0][0])[0].shape == (16, 5)


class TestRefused:
    """Wrong input is an error that says what and where, and no file is written."""

    @pytest.fixture(autouse=True)
    def nothing_is_written(self, tmp_path: Path) -> Iterator[None]:
        yield
        assert not (tmp_path / "x.onnx").exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".softprune")]

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, tmp_path: Path, dense_file: Path, value: float) -> None:
        data = vectors()
        data[1][0][3, 3] = value
        with pytest.raises(DataError, match="batch 1 has NaN or infinite inputs"):
            compress.export.int8(dense_file, tmp_path / "x.onnx", None, data)

    def test_no_data(self, tmp_path: Path, dense_file: Path) -> None:
        with pytest.raises(DataError, match="calibration data have no sample"):
            compress.export.int8(dense_file, tmp_path / "x.onnx", None, [])

    def test_a_generator(self, tmp_path: Path, dense_file: Path) -> None:
        with pytest.raises(InputError, match="can be read only once"):
            compress.export.int8(dense_file, tmp_path / "x.onnx", None, iter(vectors()))

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (torch.randn(4, 63), r"input has the shape \[4, 63\], and the file takes \['batch', 64\]"),
            (torch.zeros(4, 64, dtype=torch.uint8), "input holds uint8, and the file takes tensor"),
            ((torch.randn(4, 64), torch.randn(4, 64)), "takes the input 'input', and is given 2 tensors"),
        ],
    )
    def test_inputs_of_another_network(self, tmp_path: Path, dense_file: Path, call: object, said: str) -> None:
        given = Inputs(call) if isinstance(call, tuple) else call
        with pytest.raises(InputError, match=said):
            compress.export.int8(dense_file, tmp_path / "x.onnx", None, [given])

    def test_nothing_to_quantize(self, tmp_path: Path) -> None:
        shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
        nodes = [helper.make_node("Tanh", ["x"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
        graph = helper.make_graph(nodes, "none", shapes[:1], shapes[1:])
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "f.onnx"
        )
        with pytest.raises(UnsupportedModelError, match="nothing to quantize: it has Softmax, Tanh; int8 is for"):
            compress.export.int8(tmp_path / "f.onnx", tmp_path / "x.onnx", None, [torch.zeros(2, 4)])

    def test_quantized_already(self, tmp_path: Path, dense_file: Path) -> None:
        compress.export.int8(dense_file, tmp_path / "y.onnx", None, vectors(), kind="static", max_drop=100)
        with pytest.raises(InputError, match=r"y.onnx is quantized already \(\w+\); give the float file"):
            compress.export.int8(tmp_path / "y.onnx", tmp_path / "x.onnx", None, vectors())

    @pytest.mark.parametrize("content", [b"", b"no model", None])
    def test_damaged_or_missing(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "f.onnx").write_bytes(content)
        with pytest.raises(InputError, match=r"f\.onnx"):
            compress.export.int8(tmp_path / "f.onnx", tmp_path / "x.onnx", None, vectors())

    def test_an_opset_that_cannot_be_raised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(model: object, version: int) -> None:
            raise RuntimeError("Assertion `it != end` failed: no adapter")

        monkeypatch.setattr(onnx.version_converter, "convert_version", fails)
        gemm_of_opset(tmp_path / "f.onnx", 9)
        with pytest.raises(
            UnsupportedModelError, match=r"f\.onnx has opset 9, and onnx cannot raise it to 13, .* no adapter"
        ):
            compress.export.int8(tmp_path / "f.onnx", tmp_path / "x.onnx", None, vectors())

    @pytest.mark.parametrize(
        "wrong", [{"kind": "statc"}, {"method": "mx"}, {"max_drop": -1}, {"samples": 0}, {"exclude": "Gemm"}]
    )
    def test_settings(self, tmp_path: Path, dense_file: Path, wrong: dict[str, object]) -> None:
        with pytest.raises(InputError, match=next(iter(wrong))):
            compress.export.int8(dense_file, tmp_path / "x.onnx", None, vectors(), **wrong)  # type: ignore[arg-type]
