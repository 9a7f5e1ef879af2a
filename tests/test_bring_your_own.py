"""The page of each task, and each section of docs/bring-your-own.md: its files, then its commands, in a new folder."""

import importlib
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blocks import FOLLOWED
from torch import nn

from compress.loops.pruning import TrainingLength
from compress.models import from_factory
from compress.recipe import schema

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "bring-your-own.md").read_text(encoding="utf-8")
# The name of a file before a block makes it the file's content.
BLOCK = re.compile(r"(?:^`([\w.]+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")[1:]}
LOOP = "A training loop"
TASKS = [name for name in FOLLOWED if name != "bring-your-own.md"]
LIBRARIES = {"text.md": ("tokenizers", "transformers"), "transformers.md": ("transformers",)}
WITHOUT_RUN = ("detection.md", "policies.md", "transformers.md", "without-retraining.md")
"""Pages of Python alone, whose last lines check the result."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, from which modules are imported, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


def follow(text: str, folder: Path, run: Callable[..., Any]) -> int:
    """Write the files and run the commands and code; gives how many of them were run."""
    done = 0
    names: dict[str, Any] = {}  # a reader goes on in the same session: a block has the names of those before it
    for name, language, content in BLOCK.findall(text):
        if name:
            (folder / name).write_text(content, encoding="utf-8")
            importlib.invalidate_caches()
        elif language == "python":
            done += 1
            exec(compile(content, "page", "exec"), names)
        elif not language:
            for program, *arguments in map(shlex.split, content.splitlines()):
                done += 1
                if program == "python":
                    (script,) = arguments
                    runpy.run_path(script, run_name="__main__")  # its own process would import torch again
                else:
                    assert program == "compress"
                    run(*arguments)
    return done


def test_the_sections_are_those_that_are_followed() -> None:
    assert len(SECTIONS) == 7
    assert LOOP in SECTIONS


def test_each_task_has_a_page_that_is_linked_to() -> None:
    """docs/tasks.md is where a reader looks for a task."""
    overview = (DOCS / "tasks.md").read_text(encoding="utf-8")
    assert [page for page in TASKS if f"]({page})" not in overview] == []


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("section", [name for name in SECTIONS if name != LOOP])
def test_a_section_can_be_followed(section: str, folder: Path, run: Callable[..., Any]) -> None:
    assert follow(SECTIONS[section], folder, run) >= 2
    assert (folder / "out" / "results.json").exists()


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("page", TASKS)
def test_the_page_of_a_task_can_be_followed(page: str, folder: Path, run: Callable[..., Any]) -> None:
    for library in LIBRARIES.get(page, ()):
        pytest.importorskip(library)
    assert follow((DOCS / page).read_text(encoding="utf-8"), folder, run) >= 1
    assert (folder / "out" / "results.json").exists() == (page not in WITHOUT_RUN)


def test_the_pruners_of_loops_can_be_made(folder: Path) -> None:
    """The scripts of that section are run by test_examples.py."""
    ((name, _, content),) = [found for found in BLOCK.findall(SECTIONS[LOOP]) if found[0]]
    (folder / name).write_text(content, encoding="utf-8")
    importlib.invalidate_caches()
    made = importlib.import_module(name.removesuffix(".py"))
    for make, steps in ((made.make, 24), (made.make_gradual, 200)):
        model = nn.ModuleDict({"hidden": nn.Linear(20, 10)})
        assert make(model, TrainingLength(total=400, per_epoch=8)).removal.length == steps


def test_the_line_for_timm() -> None:
    (text,) = re.findall(r'^model: \{factory: "timm.*$', PAGE, re.MULTILINE)
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    from ruamel.yaml import YAML

    wanted = schema.FactoryModel.model_validate(YAML(typ="safe").load(text)["model"])
    assert isinstance(from_factory(wanted.factory, wanted.args), nn.Module)
