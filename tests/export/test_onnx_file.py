import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import compress.export
from compress.errors import InputError, OutputError, ProofError, UnsupportedModelError
from compress.export import onnx_file, onnx_writing
from compress.results import OPSETS
from compress.slimming.bottleneck import take_apart


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(), nn.Linear(5, 3), nn.Sigmoid())


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))


def normalised() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    model(torch.randn(9, 1, 8, 8))  # running statistics other than 0 and 1
    return model


def unflattening() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 36), nn.Unflatten(1, (4, 3, 3)), nn.ConvTranspose2d(4, 1, 3, stride=2), nn.Sigmoid()
    )


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x).tanh())


VECTOR, IMAGE = torch.zeros(1, 6), torch.zeros(3, 1, 8, 8)
EXAMPLES = {mlp: VECTOR, convolutional: IMAGE, normalised: IMAGE, unflattening: VECTOR, Tied: VECTOR}
RECIPE = json.dumps({"name": "ä"})

networks = pytest.mark.parametrize("build", EXAMPLES, ids=lambda build: build.__name__)
Build = Callable[[], nn.Module]
Converted = Callable[[Build], tuple[nn.Module, Path]]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A network and its file, alone in a folder; each is converted once."""

    @functools.cache
    def convert(build: Build) -> tuple[nn.Module, Path]:
        model, path = build(), tmp_path_factory.mktemp(build.__name__) / "m.onnx"
        assert 0 <= compress.export.onnx(model, path, EXAMPLES[build], metadata={"recipe": RECIPE}) <= 1e-5
        return model, path

    return convert


def assert_same(path: Path, model: nn.Module, example: torch.Tensor) -> None:
    """By our own session, at batch sizes other than those of the package's proof too."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    network = copy.deepcopy(model).eval()
    for batch in (1, 2, 7, 33):
        inputs = torch.randn(batch, *example.shape[1:])
        (found,) = session.run(None, {"input": inputs.numpy()})
        np.testing.assert_allclose(found, network(inputs).detach(), atol=1e-5)


class TestOnnx:
    @networks
    def test_onnxruntime_agrees_for_any_batch(self, build: Build, converted: Converted) -> None:
        model, path = converted(build)
        assert_same(path, model, EXAMPLES[build])
        assert [file.name for file in path.parent.iterdir()] == ["m.onnx"]  # no .data beside it

    def test_the_file(self, converted: Converted) -> None:
        _, path = converted(mlp)
        file = onnx.load(path)
        onnx.checker.check_model(file, full_check=True)
        assert {entry.key: entry.value for entry in file.metadata_props} == {"recipe": RECIPE}
        (given,), (result,) = file.graph.input, file.graph.output
        assert (given.name, result.name) == ("input", "output")
        assert [(d.dim_param, d.dim_value) for d in given.type.tensor_type.shape.dim] == [("batch", 0), ("", 6)]
        assert [(d.dim_param, d.dim_value) for d in result.type.tensor_type.shape.dim] == [("batch", 0), ("", 3)]
        assert b".py" not in path.read_bytes()  # no stack traces

    def test_same_bytes_again_and_no_word(
        self, converted: Converted, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        model, path = converted(mlp)
        compress.export.onnx(model, tmp_path / "m.onnx", VECTOR, metadata={"recipe": RECIPE})
        assert (tmp_path / "m.onnx").read_bytes() == path.read_bytes()
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("opset", OPSETS)
    def test_the_first_and_the_last_opset(self, opset: int, tmp_path: Path) -> None:
        model, path = normalised(), tmp_path / "m.onnx"
        compress.export.onnx(model, path, IMAGE, opset=opset)
        assert [(one.domain, one.version) for one in onnx.load(path).opset_import] == [("", opset)]
        assert_same(path, model, IMAGE)
        other = normalised()
        compress.export.with_weights(path, other, tmp_path / "other.onnx", IMAGE)
        assert [one.version for one in onnx.load(tmp_path / "other.onnx").opset_import] == [opset]
        assert_same(tmp_path / "other.onnx", other, IMAGE)

    @pytest.mark.parametrize("opset", [OPSETS[0] - 1, OPSETS[1] + 1, 20.5, "20", True])
    def test_other_opsets_are_refused(self, opset: object, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"opset: found .*at least 18 and at most 25"):
            compress.export.onnx(mlp(), tmp_path / "m.onnx", VECTOR, opset=opset)  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir())

    def test_an_exporter_that_gives_another_opset_is_noticed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = torch.onnx.export
        monkeypatch.setattr(
            torch.onnx, "export", lambda *args, **kwargs: real(*args, **{**kwargs, "opset_version": 18})
        )
        with pytest.raises(UnsupportedModelError, match="cannot be converted to opset 21: the exporter gives 18"):
            compress.export.onnx(mlp(), tmp_path / "m.onnx", VECTOR, opset=21)

    def test_integers_stay_in_range(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
        compress.export.onnx(model, tmp_path / "m.onnx", torch.tensor([[0, 4, 2]]))
        inputs = torch.tensor([[1, 2, 3], [4, 4, 0]])
        (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"input": inputs.numpy()})
        np.testing.assert_allclose(found, model(inputs).detach(), atol=1e-5)

    def test_pruning_hooks_are_refused(self, tmp_path: Path) -> None:
        model = mlp()
        prune.l1_unstructured(model[0], "weight", 0.5)
        with pytest.raises(InputError, match=r"finalize\(\).*prune\.remove"):
            compress.export.onnx(model, tmp_path / "m.onnx", VECTOR)
        assert not list(tmp_path.iterdir())

    def test_a_wrong_weight_fails_the_proof_and_leaves_what_was_there(self, tmp_path: Path) -> None:
        model = mlp()
        program = compress.export.trace(mlp(), VECTOR)
        (tmp_path / "m.onnx").write_text("older")
        with pytest.raises(ProofError, match=r"m\.onnx computes something else"):
            compress.export.onnx(model, tmp_path / "m.onnx", VECTOR, program=program)
        assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]

    def test_nan_is_no_proof(self, tmp_path: Path) -> None:
        model = mlp()
        nn.init.constant_(model[3].bias, torch.nan)
        with pytest.raises(ProofError):
            compress.export.onnx(model, tmp_path / "m.onnx", VECTOR)

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="cannot write"):
            compress.export.onnx(mlp(), tmp_path / "missing" / "m.onnx", VECTOR)

    def test_an_operation_that_onnx_lacks(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        class Eigenvalues(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.linalg.eigvals(x).abs()

        with pytest.raises(UnsupportedModelError, match="Eigenvalues"):
            compress.export.onnx(Eigenvalues(), tmp_path / "m.onnx", torch.zeros(1, 3, 3))
        assert not list(tmp_path.iterdir())
        assert capfd.readouterr() == ("", "")


class TestWithWeights:
    @networks
    def test_gives_what_a_conversion_gives(self, build: Build, converted: Converted, tmp_path: Path) -> None:
        _, source = converted(build)
        masked, path = build(), tmp_path / "m.onnx"
        compress.export.with_weights(source, masked, path, EXAMPLES[build], metadata={"a": "b"})
        assert_same(path, masked, EXAMPLES[build])
        file = onnx.load(path)
        onnx.checker.check_model(file, full_check=True)
        assert {entry.key: entry.value for entry in file.metadata_props} == {"a": "b"}

    @pytest.mark.parametrize("width", [2, 9])
    def test_of_other_widths(
        self, width: int, converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, source = converted(mlp)
        monkeypatch.setattr(onnx_file, "_convert", None)  # so it is not converted again
        other = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Dropout(), nn.Linear(width, 3), nn.Sigmoid())
        compress.export.with_weights(source, other, tmp_path / "m.onnx", VECTOR)
        assert_same(tmp_path / "m.onnx", other, VECTOR)

    @pytest.mark.parametrize("build", [mlp, normalised, Tied])
    def test_a_graph_that_has_been_written_takes_other_weights(
        self, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The bytes are those of `with_weights`, which reads the graph from the file."""
        monkeypatch.setattr(onnx_writing, "SMALL", 17)  # so that weights are written apart, and let go
        source, one, two = (tmp_path / f"{name}.onnx" for name in ("source", "one", "two"))
        conversion = onnx_file.converted(build(), EXAMPLES[build])
        conversion.write(source)
        for _ in range(2):
            other = build()
            onnx_file.reweighted(conversion.graph, other, one, EXAMPLES[build])
            compress.export.with_weights(source, other, two, EXAMPLES[build])
            assert one.read_bytes() == two.read_bytes()
            assert_same(one, other, EXAMPLES[build])

    @pytest.mark.parametrize("calls", [1, 2])
    def test_a_layer_that_was_taken_apart_is_one_again(
        self, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Repeated(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(6, 6)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for _ in range(calls):
                    x = torch.tanh(self.layer(x))
                return x

        apart, whole = Repeated(), Repeated()
        take_apart(apart, "layer", (torch.randn(6, 6), torch.randn(6)), (torch.randn(6, 6), torch.randn(6)))
        source, path = tmp_path / "source.onnx", tmp_path / "whole.onnx"
        compress.export.onnx(apart, source, VECTOR)
        monkeypatch.setattr(onnx_file, "_convert", None)  # so it is not converted again
        compress.export.with_weights(source, whole, path, VECTOR)
        assert_same(path, whole, VECTOR)
        assert [node.op_type for node in onnx.load(path).graph.node] == ["Gemm", "Tanh"] * calls

    @pytest.mark.parametrize("bias", [True, False])
    def test_a_layer_that_is_no_single_operator_is_converted(self, bias: bool, tmp_path: Path) -> None:
        def build() -> nn.Module:
            return nn.Sequential(nn.Linear(6, 6, bias=bias), nn.Tanh())

        apart, whole, example = build(), build(), torch.randn(2, 4, 6) if bias else VECTOR
        take_apart(apart, "0", (torch.randn(6, 6), torch.randn(6)), (torch.randn(6, 6), torch.randn(6)))
        source, path = tmp_path / "source.onnx", tmp_path / "whole.onnx"
        compress.export.onnx(apart, source, example)
        compress.export.with_weights(source, whole, path, example)
        assert_same(path, whole, example)

    def test_another_network_is_converted(self, converted: Converted, tmp_path: Path) -> None:
        _, source = converted(mlp)
        other = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3), nn.Sigmoid())
        compress.export.with_weights(source, other, tmp_path / "m.onnx", VECTOR)
        assert_same(tmp_path / "m.onnx", other, VECTOR)

    @pytest.mark.parametrize("name", ["text.onnx", "missing.onnx"])
    def test_a_source_that_is_no_onnx_file(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_text("hello")
        with pytest.raises(InputError, match=name):
            compress.export.with_weights(tmp_path / name, mlp(), tmp_path / "m.onnx", VECTOR)
