"""Everything that may be wrong with tables, series and arrays, from the command line: the text, and no file."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

Run = Callable[..., Result]
Unchanged = Callable[[Path], AbstractContextManager[None]]

RECIPE = """\
name: table
model: {{factory: "table_net:build"}}
data: {data}
task: {task}
train: {{epochs: 1, optimizer: sgd, lr: 0.1}}
stages:
  - target: {{nodes: "0"}}
    criterion: magnitude
    sparsity: 0.5
    removal: hard
"""

NET = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))\n"

ROWS = "a,b,y\n" + "".join(f"{row % 7},{row * 0.5},{'no' if row % 2 else 'yes'}\n" for row in range(40))


@pytest.fixture
def said(run: Run, unchanged: Unchanged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Train on a table in t.csv, which fails; give the text. Nothing may be left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (tmp_path / "table_net.py").write_text(NET, encoding="utf-8")

    def command(content: str | bytes, data: str = "{csv: t.csv, target: y}", task: str = "classify") -> str:
        (tmp_path / "t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        (tmp_path / "r.yaml").write_text(RECIPE.format(data=data, task=task), encoding="utf-8")
        with unchanged(tmp_path):
            result = run("train", "r.yaml", "-o", "new/model.pt", code=2)
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr

    return command


@pytest.mark.parametrize(
    ("content", "data", "text"),
    [
        (ROWS, "{csv: t.csv, target: yy}", "has no column 'yy' (target); it has a, b, y; did you mean y?"),
        (ROWS, "{csv: none.csv, target: y}", "none.csv does not exist"),
        ("", "{csv: t.csv, target: y}", "t.csv is empty."),
        ("a,b,y\n", "{csv: t.csv, target: y}", "t.csv has a header and no row"),
        (
            ROWS + "1,2\n",
            "{csv: t.csv, target: y}",
            "t.csv, line 42: found 2 fields separated by ',', and the file has 3",
        ),
        (ROWS + "x,2,no\n", "{csv: t.csv, target: y}", "t.csv, line 42, column 'a': found 'x', which is not a number"),
        (
            ROWS + "3,n/a,no\n",
            "{csv: t.csv, target: y}",
            "t.csv, line 42, column 'b': the value is missing (found 'n/a')",
        ),
        (ROWS + f"{'9' * 400},2,no\n", "{csv: t.csv, target: y}", "beyond what float32 holds"),
        (ROWS.encode() + b"\xff,2,no\n", "{csv: t.csv, target: y}", "t.csv is not utf-8: byte 0xff at position"),
        (ROWS, "{csv: t.csv, target: y, encoding: klingon}", "unknown encoding: klingon"),
        (ROWS, "{csv: t.csv, target: y, separator: ';'}", "has no column 'y' (target); it has a,b,y"),
        (ROWS.replace("b", "a", 1), "{csv: t.csv, target: y}", "has the column 'a' 2 times"),
        ("a,b,y\n1,2,no\n", "{csv: t.csv, target: y}", "t.csv has one row"),
        (ROWS.replace("yes", "no"), "{csv: t.csv, target: y}", "the target 'y' is the same in all rows"),
        (ROWS, "{csv: t.csv, target: y, drop: a}", "table_net:build does not run on the data, inputs of 1"),
        (ROWS, "{csv: t.csv, target: y, train: 99}", "train asks for 99 of 34 samples"),
        (ROWS, "{csv: t.csv, target: a, drop: y, series: {window: 40, horizon: 2}}", "a window of 40 rows with the 2"),
        (ROWS, "{csv: t.csv, target: y, series: {window: 4, horizon: 2}}", "line 2, column 'y': found 'yes', which is"),
    ],
)
def test_bad_tables(said: Callable[..., str], content: str | bytes, data: str, text: str) -> None:
    assert text in said(content, data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            "{csv: t.csv, folder: x}",
            "data: found a mapping with the keys csv, folder; needs a mapping with exactly one of",
        ),
        ("{csv: t.csv, separator: '; '}", "data.separator"),
        ("{csv: t.csv, impute: mean}", "data.impute: found 'mean'; did you mean median?"),
        ("{csv: t.csv, targets: y}", "data.targets: unknown key; did you mean target?"),
        ("{csv: t.csv, series: {window: 3}}", "data.series.horizon: missing"),
        ("{csv: t.csv, embed: true, series: {window: 3, horizon: 1}}", "data.series: a series has no `embed`"),
        ("{npz: a.npz, inputs: []}", "data.inputs"),
        ("{npz: a.npz, inputs: [a, a]}", "a is listed twice"),
    ],
)
def test_bad_keys(said: Callable[..., str], data: str, text: str) -> None:
    assert text in said(ROWS, data)


def test_bad_arrays(said: Callable[..., str], tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", inputs=np.array([[1.0, np.nan]] * 12), targets=np.arange(12) % 2)
    text = said(ROWS, "{npz: d.npz, inputs: inputs, targets: targets}")
    assert "d.npz: the array inputs has nan in sample 0 (from 0); fix the sample, or remove it" in text
    text = said(ROWS, "{npz: d.npz}")
    assert "it holds inputs, targets; arrays of other names are read with {npz: FILE, inputs: NAME}" in text


def test_no_target_for_a_task_that_has_one(said: Callable[..., str]) -> None:
    assert "t.csv has no targets, and the task classify compares outputs with targets" in said(
        ROWS, "{csv: t.csv, drop: y}"
    )


def test_a_batch_larger_than_the_data_and_a_quoted_line_break(
    said: Callable[..., str], run: Run, tmp_path: Path
) -> None:
    """What is not a mistake: the command ends well."""
    content = 'a,b,"y\nor n"\n' + ROWS.partition("\n")[2]
    said("", "{csv: t.csv, target: y}")  # writes the files
    (tmp_path / "t.csv").write_text("\ufeff" + content, encoding="utf-8")
    data = '{csv: t.csv, target: "y\\nor n", batch_size: 1000}'
    (tmp_path / "r.yaml").write_text(RECIPE.format(data=data, task="classify"), encoding="utf-8")
    run("train", "r.yaml", "-o", "model.pt")
    assert (tmp_path / "model.pt").exists()
