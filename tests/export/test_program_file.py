import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import compress.export
from compress.errors import InputError, ProofError, UnsupportedModelError

EXAMPLE = torch.full((1, 6), 0.123456)


class Own(nn.Module):
    """A class that a fresh process does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 36)
        self.outer = nn.ConvTranspose2d(4, 1, 3, stride=2)
        self.dropout = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.dropout(self.inner(x)).unflatten(1, (4, 3, 3))).sigmoid()


class TestPt2:
    @pytest.mark.extended
    def test_runs_in_a_process_that_has_never_seen_the_class(self, tmp_path: Path) -> None:
        model, inputs = Own(), torch.randn(7, 6)
        assert compress.export.pt2(model, tmp_path / "m.pt2", EXAMPLE) <= 1e-5
        assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
        torch.save((inputs, model.eval()(inputs).detach()), tmp_path / "expected.pt")
        script = (
            "import torch\n"
            "inputs, expected = torch.load('expected.pt')\n"
            "module = torch.export.load('m.pt2').module()\n"
            "torch.testing.assert_close(module(inputs), expected)\n"
            "torch.testing.assert_close(module(inputs[:1]), expected[:1])\n"
        )
        done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_same_model_same_bytes_and_nothing_of_this_machine(self, tmp_path: Path) -> None:
        model = Own()
        compress.export.pt2(model, tmp_path / "a.pt2", EXAMPLE)
        compress.export.pt2(model, tmp_path / "b.pt2", torch.randn(5, 6))  # the example's values are not kept
        content = (tmp_path / "a.pt2").read_bytes()
        assert content == (tmp_path / "b.pt2").read_bytes()
        assert b".py" not in content

    def test_one_trace_serves_all_files(self, tmp_path: Path) -> None:
        model = Own()
        program = compress.export.trace(model, EXAMPLE)
        compress.export.onnx(model, tmp_path / "m.onnx", EXAMPLE, program=program)
        compress.export.pt2(model, tmp_path / "m.pt2", EXAMPLE, program=program)
        assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.pt2"}

    def test_a_wrong_weight_fails_the_proof(self, tmp_path: Path) -> None:
        with pytest.raises(ProofError, match="computes something else"):
            compress.export.pt2(Own(), tmp_path / "m.pt2", EXAMPLE, program=compress.export.trace(Own(), EXAMPLE))
        assert not list(tmp_path.iterdir())

    def test_pruning_hooks_are_refused(self, tmp_path: Path) -> None:
        model = Own()
        prune.random_unstructured(model.inner, "bias", 0.5)
        with pytest.raises(InputError, match="finalize"):
            compress.export.pt2(model, tmp_path / "m.pt2", EXAMPLE)

    def test_only_from_the_cpu(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"is on meta: export model\.cpu\(\)"):
            compress.export.pt2(Own().to("meta"), tmp_path / "m.pt2", EXAMPLE)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1)


class ByTheBatch(nn.Module):
    """A factor that a graph takes for a constant, which the proof sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.shape[0] ** 0.5)


class TestTrace:
    @pytest.mark.parametrize("kind", [Branching, FixedBatch, ByTheBatch])
    def test_what_cannot_be_traced_is_named(self, kind: type[nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(UnsupportedModelError, match=kind.__name__):
            compress.export.trace(kind(), EXAMPLE)
        assert capfd.readouterr() == ("", "")

    def test_a_refusal_names_the_line(self) -> None:
        with pytest.raises(UnsupportedModelError, match=r"torch\.where.*test_program_file\.py, line \d+: `return x if"):
            compress.export.trace(Branching(), EXAMPLE)

    def test_each_module_keeps_its_mode(self) -> None:
        model = Own()
        model.dropout.eval()
        compress.export.trace(model, EXAMPLE)
        assert (model.training, model.inner.training, model.dropout.training) == (True, True, False)
