"""The examples of docs/int8.md work, in their order."""

import shlex
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from blocks import blocks, commands
from typer.testing import Result

from compress.quantize import choosing

PAGE = Path(__file__).parents[2] / "docs" / "int8.md"


@pytest.mark.extended
def test_the_page_runs(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choosing, "_SECONDS", 0.1)
    first, second = blocks(PAGE, "python")
    names: dict[str, object] = {}
    exec(compile(first.text, str(PAGE), "exec"), names)
    lines = commands(PAGE)
    assert len(lines) == 2
    for line in lines:
        run(*shlex.split(line)[1:], "--max-drop", "50", "--batch-sizes", "32")
    for file in ("net.int8.onnx", "static.onnx"):
        assert any("Quantize" in node.op_type for node in onnx.load(tmp_path / file).graph.node)
    exec(compile(second.text, str(PAGE), "exec"), names)
