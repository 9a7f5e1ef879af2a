"""The versions that the documentation supports are those of pyproject.toml, the code, and the recorded test runs."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from compress.results import OPSETS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LEAST = dict(re.findall(r"^([\w-]+)>=([\d.]+)$", "\n".join(PROJECT["dependencies"]), re.MULTILINE))
LEAST["Python"] = PROJECT["requires-python"].removeprefix(">=")
PAGES = ("README.md", "docs/quickstart.md", "docs/reliability.md", "docs/tour.sh")


def row(name: str) -> str:
    """A row of the table of versions."""
    text = (
        (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").partition("## Versions")[2].partition("```")[0]
    )
    (found,) = re.findall(rf"^\| {name} \| (.*) \|$", text, re.MULTILINE)
    return found


@pytest.mark.parametrize("name", ["Python", "torch", "onnxruntime"])
def test_the_least_version_is_the_one_that_installs(name: str) -> None:
    assert row(name).startswith(f"{LEAST[name]} or newer")


def test_the_least_torchvision_is_that_of_the_torch() -> None:
    assert f"torchvision {LEAST['torchvision']} or newer" in row("torch")


def test_the_opsets_are_those_of_the_code() -> None:
    assert row("ONNX files").startswith(f"opset {OPSETS[0]} to {OPSETS[1]};")
    assert f"{OPSETS[0]} to {OPSETS[1]}" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_that_names_a_version_names_the_same(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, version in re.findall(r"\b(Python|torch) ([\d.]+\d) or newer", text):
        assert version == LEAST[name], f"{page}: {name} {version}"


def test_the_oldest_versions_were_tested() -> None:
    runs = json.loads((ROOT / "docs" / "benchmarks" / "reliability.json").read_text(encoding="utf-8"))["suite"].values()
    for name in ("torch", "Python"):
        assert any(run[name.lower()].startswith(f"{LEAST[name]}.") and run["failed"] == 0 for run in runs), name
