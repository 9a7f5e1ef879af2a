"""Every sweep, over a cache in which anybody has been: the same figures as before, and one line that says how many."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from compress.errors import CheckpointError
from compress.sweep.trained import Trained

Run = Callable[..., Result]

SWEEPS = {
    "compare": ("--removal", "hard", "--criterion", "magnitude,random", "--sparsity", ".5", "--lr", "1e-3,1e-2"),
    "sensitivity": ("--tolerate", "1.5x", "--levels", ".25,.5,.75"),
    "search": ("--max-loss", "2x", "--levels", ".25,.5,.75"),
}


def edited(path: Path) -> None:
    """Every number of the result is 0.999 now."""
    cell = json.loads(path.read_text(encoding="utf-8"))
    cell["result"] = json.loads(re.sub(r"-?\d+\.\d+(e-?\d+)?", "0.999", json.dumps(cell["result"])))
    path.write_text(json.dumps(cell), encoding="utf-8")


def damaged(cells: Path) -> int:
    """Something else in the place of every cell but the last; how many these are."""
    paths = sorted(cells.glob("*.json"))
    ways: list[Callable[[Path], object]] = [
        edited,
        lambda path: path.write_text("{}"),
        lambda path: path.write_text("[" * 9999),
        lambda path: path.write_bytes(paths[-1].read_bytes()),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to(paths[-1])),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
    ]
    for number, path in enumerate(paths[:-1]):
        ways[number % len(ways)](path)
    return len(paths) - 1


def untimed(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: untimed(value) for key, value in document.items() if key not in ("seconds", "warnings")}
    return [untimed(value) for value in document] if isinstance(document, list) else document


@pytest.mark.parametrize(
    "sweep", ["sensitivity", *(pytest.param(name, marks=pytest.mark.slow) for name in ("compare", "search"))]
)
def test_damaged_cells_are_computed_again(recipe: Path, trained: Path, tmp_path: Path, run: Run, sweep: str) -> None:
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1, "--json")
    command = (sweep, recipe, trained, *SWEEPS[sweep], *where)
    first = json.loads(run(*command).stdout)
    kept = sorted(tmp_path.glob("cells/*.json"))[-1].read_bytes()
    count = damaged(tmp_path / "cells")
    again = run(*command)
    assert untimed(json.loads(again.stdout)) == untimed(first)
    told = re.findall(r"warning: (\d+) finished cells? in \S+ (?:is|are) damaged", again.stderr)
    assert told == [str(count)]
    assert sorted(tmp_path.glob("cells/*.json"))[-1].read_bytes() == kept
    assert len(list(tmp_path.glob("cells/[!.]*"))) == count + 1, "nothing is left beside them"


FACTORY = """\
import torch

from widths import WIDTH


def build():
    parts = torch.nn.Flatten(), torch.nn.Linear(36, 8), torch.nn.Linear(8, 36), torch.nn.Unflatten(1, (1, 6, 6))
    return torch.nn.Sequential(*parts)
"""


def test_cells_of_a_factory_that_has_changed_are_computed_again(
    recipe: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_net_of_cells.py").write_text(FACTORY.replace("widths", "widths_of_cells"), encoding="utf-8")
    (tmp_path / "widths_of_cells.py").write_text("WIDTH = 8\n", encoding="utf-8")
    factory = ("--set", "model={factory: 'my_net_of_cells:build'}")
    run("train", recipe, "-o", "model.pt", *factory, "--set", "train.epochs=1")
    target = ("--set", "stages.0.target={nodes: '1'}", "--tolerate", "1.5x", "--levels", ".5")
    command = ("sensitivity", recipe, "model.pt", *factory, *target, "-o", "out", "--cache", "cells", "--workers", 1)

    def written() -> set[int]:
        return {path.stat().st_mtime_ns for path in Path("cells").glob("[!.]*")}

    assert "warning" not in run(*command).stderr
    first = written()
    assert "warning" not in run(*command).stderr
    assert written() == first
    (tmp_path / "widths_of_cells.py").write_text("WIDTH = 9\n", encoding="utf-8")
    assert f"warning: {len(first)} finished cells in cells are damaged, or are of another" in run(*command).stderr
    assert not written() & first


def test_weights_that_change_while_a_sweep_runs_are_told(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(trained.read_bytes())
    found = Trained.of(path)
    found.require_unchanged()
    path.write_bytes(trained.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="has changed since the sweep was started"):
        found.require_unchanged()


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_weights_that_are_no_file(tmp_path: Path, recipe: Path, run: Run, kind: str) -> None:
    path = {"a pipe": tmp_path / "pipe.pt", "a folder": tmp_path, "a device": Path("/dev/zero")}[kind]
    if kind == "a pipe":
        os.mkfifo(path)
    assert f"{path} is {kind}" in run("compare", recipe, path, "--removal", "hard", code=2).stderr
