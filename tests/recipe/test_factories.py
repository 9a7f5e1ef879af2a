"""stderr names the code that a recipe runs, before it runs."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from compress.recipe.factories import factories
from compress.recipe.loading import load_recipe

Run = Callable[..., Result]


def told(recipe: Path, factory: str) -> list[str]:
    return list(factories(load_recipe(recipe, [f"model={{factory: '{factory}'}}"])))


def test_a_recipe_without_factories_runs_nobody_s_code(recipe: Path) -> None:
    assert list(factories(load_recipe(recipe))) == []


def test_the_place_is_where_it_will_be_imported_from(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_net_there.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    (tmp_path / "my_package_there" / "deep").mkdir(parents=True)
    (tmp_path / "my_package_there" / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    (tmp_path / "bare_folder").mkdir()
    monkeypatch.chdir(tmp_path)
    (line,) = told(recipe, "my_net_there:build")
    assert line == f"the recipe imports my_net_there from {tmp_path}/my_net_there.py, to call my_net_there:build"
    (line,) = told(recipe, "my_package_there.deep:build")
    assert f"imports my_package_there.deep from {tmp_path}/my_package_there/__init__.py, to call" in line
    assert f"from {tmp_path}/bare_folder, to call" in told(recipe, "bare_folder.a:build")[0]
    assert "from nowhere (the module was not found)" in told(recipe, "absent_module:build")[0]
    assert "from Python itself" in told(recipe, "sys:exit")[0]
    assert f"from {torch.__file__}, to call torch.nn:Linear" in told(recipe, "torch.nn:Linear")[0]
    assert "my_net_there" not in sys.modules


def test_data_are_told_of_too(recipe: Path) -> None:
    changed = load_recipe(recipe, ["data={factory: 'absent_data:loaders'}"])
    assert ["to call absent_data:loaders" in line for line in factories(changed)] == [True]


def test_functions_of_a_task_and_programs_are_told_of(recipe: Path) -> None:
    task = "task={loss: 'absent_task:loss', metrics: {share: 'absent_metric:share'}}"
    lines = list(
        factories(load_recipe(recipe, [task, "model={name: program}", "train=null", "stages.0.criterion=magnitude"]))
    )
    assert ["to call absent_task:loss" in line for line in lines] == [True, False, False]
    assert "to call absent_metric:share" in lines[1]
    assert lines[2] == "the recipe's model is a program: loading its .pt2 may run code from that file"


@pytest.mark.parametrize(
    "command",
    [
        "train RECIPE -o m.pt",
        "apply RECIPE w.pt -o out",
        "export w.pt --recipe RECIPE -o out",
        "compare RECIPE w.pt",
        "sensitivity RECIPE w.pt",
        "search RECIPE w.pt --max-params 0.5x",
        "plan RECIPE",
    ],
)
def test_every_command_tells_it_first(
    run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    code = "import sys\nprint('now it runs', file=sys.stderr)\nraise ValueError('that is all')\n"
    (tmp_path / "tells_later.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    arguments = command.replace("RECIPE", str(recipe)).split()
    text = run(*arguments, "--set", "model={factory: 'tells_later:build'}", code=2).stderr
    line = f"the recipe imports tells_later from {tmp_path}/tells_later.py, to call tells_later:build"
    assert line in text
    assert "now it runs" not in text.partition(line)[0]
