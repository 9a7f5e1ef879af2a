"""docs/bring-your-own.md as a reader follows it: the files, then the commands, a folder for each section."""

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
from torch import nn

from compress.loops.pruning import TrainingLength
from compress.models import from_factory
from compress.recipe import schema

PAGE = (Path(__file__).parents[1] / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
# The name of a file before a block makes it the file's content.
BLOCK = re.compile(r"(?:^`([\w.]+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")[1:]}
LOOP = "A training loop"


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


def follow(section: str, folder: Path, run: Callable[..., Any]) -> int:
    """Write the files and run the commands and code; gives the number of commands."""
    commands = 0
    for name, language, content in BLOCK.findall(SECTIONS[section]):
        if name:
            (folder / name).write_text(content, encoding="utf-8")
            importlib.invalidate_caches()
        elif language == "python":
            exec(compile(content, section, "exec"), {})
        elif not language:
            for program, *arguments in map(shlex.split, content.splitlines()):
                commands += 1
                if program == "python":
                    (script,) = arguments
                    runpy.run_path(script, run_name="__main__")  # a process of its own would import torch again
                else:
                    assert program == "compress"
                    run(*arguments)
    return commands


def test_the_sections_are_those_that_are_followed() -> None:
    assert len(SECTIONS) == 11
    assert LOOP in SECTIONS


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("section", [name for name in SECTIONS if name != LOOP])
def test_a_section_can_be_followed(section: str, folder: Path, run: Callable[..., Any]) -> None:
    if "BERT" in section:
        pytest.importorskip("tokenizers")
        pytest.importorskip("transformers")
    assert follow(section, folder, run) >= 2
    assert (folder / "out" / "results.json").exists()


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
