"""Whose code a cell was computed by: every module that a factory brings is in it, and nothing is run to find out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from compress.recipe.loading import load_recipe
from compress.recipe.schema import Recipe
from compress.sweep.code import code_of

FILES = {
    "my_net.py": "import os, json\nimport helpers.layers as layers\nfrom torch import nn\nraise SystemExit('run')\n",
    "helpers/__init__.py": "",
    "helpers/layers.py": "def of():\n    from .sizes import SIZE\n    from . import deep\n    return SIZE\n",
    "helpers/sizes.py": "from ..helpers.more import *\nSIZE = 8\n",
    "helpers/more.py": "import my_net\n",
    "helpers/deep/__init__.py": "from . import deeper\n",
    "helpers/deep/deeper.py": "",
    "losses.py": "import numpy as np\n",
    "not_imported.py": "",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def own(recipe: Path) -> Callable[..., Recipe]:
    def load(model: str, *changes: str) -> Recipe:
        return load_recipe(recipe, [f"model={{factory: '{model}'}}", *changes])

    return load


def test_a_recipe_without_factories_has_none(recipe: Path) -> None:
    assert code_of(load_recipe(recipe)) == {}


def test_every_module_that_a_factory_brings(place: Path, own: Callable[..., Recipe]) -> None:
    found = code_of(own("my_net:build", "task={loss: 'losses:mine'}"))
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in FILES}
    assert set(found) - {"torch", "numpy"} == modules - {"not_imported"}
    assert found["torch"].startswith("torch ")
    assert found["numpy"].startswith("numpy ")


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("not_imported.py", "losses.py")])
def test_any_of_them_that_changes_makes_other_code(place: Path, own: Callable[..., Recipe], name: str) -> None:
    recipe = own("my_net:build")
    before = code_of(recipe)
    assert code_of(recipe) == before
    with (place / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert code_of(recipe) != before
    (place / name).write_text(FILES[name], encoding="utf-8")
    assert code_of(recipe) == before
    (place / "not_imported.py").write_text("changed = True\n", encoding="utf-8")
    assert code_of(recipe) == before


@pytest.mark.parametrize("text", ["def broken(:\n", "\0", "\xff", "x = " + "(" * 5000, "from ....... import far\n", ""])
def test_a_source_that_is_not_python_has_its_hash(place: Path, own: Callable[..., Recipe], text: str) -> None:
    (place / "my_net.py").write_text(text, encoding="latin-1")
    assert set(code_of(own("my_net:build"))) == {"my_net"}


def test_an_installed_package_has_its_version(own: Callable[..., Recipe]) -> None:
    assert set(code_of(own("torchvision.models:resnet18"))) == {"torchvision"}


def test_a_module_that_is_nowhere_is_the_business_of_who_imports_it(own: Callable[..., Recipe]) -> None:
    assert code_of(own("nowhere.at_all:build")) == {}
