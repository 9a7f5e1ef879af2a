import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from compress.errors import InputError
from compress.run.benching import bench

Run = Callable[..., Result]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_any_mixture_takes_turns(run: Run, applied: Path, recipe: Path, trained: Path) -> None:
    """ONNX in onnxruntime; a slim file, which names its network, weights of the recipe and a program in torch."""
    files = [applied / name for name in ("slim.onnx", "slim.safetensors", "slim.pt2")]
    options = ("--trust", "--recipe", recipe, "--batch-sizes", "1,3", "--seconds", "0.05", "--json")
    found = json.loads(run("bench", *files, trained, *options).stdout)
    assert found["runtimes"] == {
        str(files[0]): "onnxruntime",
        **dict.fromkeys(map(str, [*files[1:], trained]), "torch"),
    }
    for batches in found["models"].values():
        assert list(batches) == ["1", "3"]
        assert all(figures["p50"] > 0 for figures in batches.values())


def test_a_file_without_its_network(trained: Path) -> None:
    with pytest.raises(InputError, match="does not name its network: name a recipe for it with --recipe"):
        bench([trained], batch_sizes=[1], seconds=0.01)


def test_a_program_has_to_be_trusted(applied: Path) -> None:
    with pytest.raises(InputError, match=r"slim\.pt2 is a program, .* may run code from it: .* add --trust"):
        bench([applied / "slim.pt2"])


def test_what_cannot_be_timed(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(
        InputError, match=r"ends in '\.yaml': \.onnx, \.pt2, \.pt, \.pth, \.ckpt, \.bin, \.safetensors can be timed"
    ):
        bench([recipe])
    with pytest.raises(InputError, match=r"nowhere\.onnx does not exist"):
        bench([tmp_path / "nowhere.onnx"])
