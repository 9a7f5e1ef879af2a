"""`--help`: every command shows a command that works."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer.main
from typer.testing import Result

from compress.cli import app
from compress.models import autoencoder
from compress.recipe.loading import load_recipe
from compress.recipe.shipped import shipped_text

Run = Callable[..., Result]

GROUP = typer.main.get_group(app)
EXAMPLES = {
    name: re.findall(r"^Example: (compress .*)$", command.help or "", re.MULTILINE)
    for name, command in GROUP.commands.items()
}


def words(name: str) -> list[str]:
    """Of the example, without what the shell does with its output."""
    (line,) = EXAMPLES[name]
    return shlex.split(line.partition(">")[0])


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_has_an_example_that_it_takes(name: str) -> None:
    program, command, *arguments = words(name)
    assert (program, command) == ("compress", name)
    given = GROUP.commands[command].make_context(command, arguments).params
    if isinstance(given.get("recipe"), str):
        load_recipe(given["recipe"], given.get("changes") or ())


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_shown(run: Run, name: str) -> None:
    shown = " ".join(run(name, "--help", env={"COLUMNS": "200"}).stdout.split())
    assert f"Example: {EXAMPLES[name][0]}" in shown


@pytest.mark.extended
@pytest.mark.parametrize("name", ["inspect", "bench", "export", "recipes"])
def test_the_cheap_examples_run(
    run: Run, applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In a folder with the files that they name."""
    for file in ("dense.onnx", "slim.onnx"):
        shutil.copy(applied / "slim.onnx", tmp_path / file)
    torch.save(autoencoder(64).state_dict(), tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    _, *arguments = words(name)
    brief = {"bench": ["--seconds", "0.1"], "export": ["--format", "safetensors"]}
    shown = run(*arguments, *brief.get(name, [])).stdout
    if name == "recipes":
        assert shown == shipped_text("mnist_ae").rstrip() + "\n"
    else:
        assert shown.splitlines()[-1].startswith("next: compress ")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_first_line_is_enough_for_the_list_of_commands(run: Run, name: str) -> None:
    first, _, rest = (GROUP.commands[name].help or "").partition("\n\n")
    assert "\n" not in first
    assert first.endswith(".")
    assert rest
    assert "Example" not in run("--help").stdout
