"""Files and folders whose names have spaces, umlauts and more; and names that every system takes."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from compress.errors import RecipeError
from compress.recipe.loading import load_recipe

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    file for part in ("compress", "export", "benchmarks") for file in (ROOT / part).rglob("*.py") if file.is_file()
)

Run = Callable[..., Result]
Pasted = Callable[[str], list[str]]


@pytest.fixture
def odd(tmp_path: Path, npz: Path, recipe_text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose name has spaces and an emoji, with a recipe and data of such names; we stand in it."""
    folder = tmp_path / "my models 🦔 (new)"
    folder.mkdir()
    shutil.copy(npz, folder / "Bilder & Ähnliches.npz")
    text = recipe_text.replace(json.dumps(str(npz)), "Bilder & Ähnliches.npz").replace("export: []", "")
    # As an editor on Windows may write it: line ends of its own, and a mark at the start.
    (folder / "größe 1 (test).yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.extended
def test_everything_runs_with_odd_names(run: Run, odd: Path, pasted: Pasted) -> None:
    """And what it writes of its own has names that every system takes, and line ends that are the same on all."""
    recipe, model, given = "größe 1 (test).yaml", "größtes 'Modell'.pt", set(odd.rglob("*"))
    trained = run("train", recipe, "-o", model, "--set", "train.epochs=1", "--log", "csv:mein Verlauf")
    following = trained.stdout.splitlines()[-1].removeprefix("next: ")
    assert pasted(following)[:3] == ["apply", recipe, model]
    run("apply", recipe, model, "-o", "Ergebnis №1", "--set", "benchmark.batch_sizes=[1]", "--log", "csv")
    results = json.loads(Path("Ergebnis №1/results.json").read_text(encoding="utf-8"))
    assert results["recipe"]["data"]["npz"] == "Bilder & Ähnliches.npz"
    assert load_recipe("Ergebnis №1/recipe.yaml").model_dump(mode="json") == results["recipe"]
    for name in ("slim.safetensors", "slim.onnx", "slim.pt2"):
        assert f"Ergebnis №1/{name}" in run("inspect", f"Ergebnis №1/{name}").stdout
    run("export", "Ergebnis №1/slim.safetensors", "-o", "ö ö", "--format", "onnx")
    run("bench", "ö ö/model.onnx", "Ergebnis №1/slim.onnx", "--seconds", "0.1", "--batch-sizes", "1")
    rivals = ("--removal", "hard,{kind: soft, decay: linear}", "--seeds", "1", "--lr", "1e-3", "--workers", "1")
    run("compare", recipe, model, *rivals)

    written = [path for path in odd.rglob("*") if path not in given]
    assert len(written) > 20
    assert not [path for path in written if REFUSED.search(path.name) or path.is_symlink()]
    texts = [path for path in written if path.suffix in (".json", ".yaml", ".md")]
    assert len(texts) > 5
    assert not [path for path in texts if "\r" in path.read_bytes().decode("utf-8")]


def test_a_terminal_that_knows_no_umlauts_is_no_reason_to_fail(odd: Path, trained: Path) -> None:
    """What it cannot show is written out."""
    shutil.copy(trained, "ö 🦔.pt")
    done = subprocess.run(
        [sys.executable, "-m", "compress.cli", "inspect", "ö 🦔.pt"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        encoding="ascii",
        check=True,
    )
    assert "\n\\xf6 \\U0001f994.pt: " in done.stdout


# --- names that every system takes ---

REFUSED = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


def test_the_pattern_knows_what_windows_refuses() -> None:
    assert all(REFUSED.search(name) for name in ("a:b", "a?", "a.", "a ", "con", "NUL.txt", "Com1", 'a"b', "a\tb"))
    assert not any(REFUSED.search(name) for name in ("results.json", "console", "com", "a b", ".softprune-x", "größe"))


@pytest.mark.parametrize("name", ["CON", "con", "Nul", "com1", "LPT9", "a:b", "a/b", "trailing.", "größe", "a b", ""])
def test_a_recipe_is_called_so_that_a_folder_can_be(recipe: Path, name: str) -> None:
    """Since the folder of its results is, if no other is named."""
    with pytest.raises(RecipeError, match=f"name: found '{re.escape(name)}'"):
        load_recipe(recipe, [f"name={json.dumps(name)}"])
    assert load_recipe(recipe, ["name=console-1"]).name == "console-1"


# --- the source ---


def test_every_text_file_is_utf_8_with_the_same_line_ends() -> None:
    """The defaults depend on the machine."""
    found, calls = [], 0
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            binary = any(re.fullmatch(r"[rwax+]*b[rwax+]*", mode) for mode in modes)
            owner = ast.unparse(node.func).rpartition(".")[0]
            if (
                name not in ("open", "read_text", "write_text")
                or binary
                or owner in ("Image", "os", "journal", "archive")
            ):
                continue
            calls += 1
            given = {keyword.arg for keyword in node.keywords}
            # Windows would write line ends of its own.
            same = name != "write_text" or file.is_relative_to(ROOT / "benchmarks") or "newline" in given
            if "encoding" not in given or not same:
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert calls > 20
    assert not found


def test_nothing_makes_a_link_at_run_time() -> None:
    assert len(SOURCES) > 100
    assert not [file for file in SOURCES if re.search(r"symlink_to|os\.symlink|hardlink_to", file.read_text("utf-8"))]
