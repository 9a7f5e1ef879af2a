"""What users import: documented, and nothing of it shadowed; no example reaches deeper."""

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from blocks import blocks

import compress
from compress import errors
from compress.remove.removals import REMOVALS
from compress.select.criteria import CRITERIA

ROOT = Path(__file__).parents[1]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
NAMES = [name for name in compress.__all__ if name not in ("__version__", "export")]
OPTIONAL = {"LightningPruning", "TrainerPruning"}  # their packages need not be installed
PUBLIC = {"compress", "compress.export"}
"""What examples import from."""


def public(name: str) -> object:
    if name in OPTIONAL:
        pytest.importorskip({"LightningPruning": "lightning", "TrainerPruning": "transformers"}[name])
    return getattr(compress, name)


def test_the_names_are_there_in_order_and_once() -> None:
    assert len(set(compress.__all__)) == len(compress.__all__)
    assert set(compress.__all__) <= set(dir(compress))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", compress.__version__)
    with pytest.raises(AttributeError, match="module 'compress' has no attribute 'prone'"):
        compress.prone  # noqa: B018


def test_all_criteria_removals_and_errors_are_public() -> None:
    raised = {name for name, found in vars(errors).items() if isinstance(found, type)}
    described = {member.__name__ for member in (*CRITERIA, *REMOVALS)}
    assert raised | described <= set(NAMES)
    assert {"Pruner", "weights", "nodes", "slim", "couplings", "load", "SoftPruningMethod", "Regrowth"} <= set(NAMES)
    assert {"HardPruner", "SoftPruner"}.isdisjoint(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_what_it_says(name: str) -> None:
    found = public(name)
    assert getattr(found, "__name__", None) == name
    assert callable(found)


def test_the_documented_names_are_the_public_ones() -> None:
    documented = re.findall(r"^::: ([\w.]+)$", API, flags=re.MULTILINE)
    assert len(set(documented)) == len(documented)
    exported = {name.removeprefix("compress.export.") for name in documented if name.startswith("compress.export.")}
    assert exported == set(compress.export.__all__)
    plain = {name.removeprefix("compress.") for name in documented} - {f"export.{name}" for name in exported}
    assert "errors" in plain  # the page of all of them
    raised = {name for name in NAMES if hasattr(errors, name)}
    assert (plain - {"errors"}) | raised == set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if not hasattr(errors, name)])
def test_each_name_has_words_of_its_own(name: str) -> None:
    """The page is made from docstrings; a dataclass without one gets its signature instead."""
    found = public(name)
    text = inspect.getdoc(found) or ""
    assert text.partition("\n")[0].endswith((".", ":", ";", ",")) or "\n" in text
    assert not (dataclasses.is_dataclass(found) and text.startswith(f"{name}("))
    signature = inspect.signature(found) if not name.endswith("Warning") else None  # type: ignore[arg-type]
    if inspect.isfunction(found) and signature is not None and len(signature.parameters) > 1:
        assert "Args:" in text or name == "couplings"


@pytest.mark.parametrize("name", compress.export.__all__)
def test_each_export_has_words_of_its_own(name: str) -> None:
    assert inspect.getdoc(getattr(compress.export, name))


# --- who shadows whom ---


def test_a_module_can_be_imported_after_the_function_was_used() -> None:
    names: dict[str, object] = {}
    code = """
import compress
compress.slim, compress.couplings, compress.load
import compress.slimming.shrink as s
import compress.graph.coupling as c
import compress.files.checkpoint as f
"""
    exec(code, names)
    modules = {"s": "compress.slimming.shrink", "c": "compress.graph.coupling", "f": "compress.files.checkpoint"}
    for short, module in modules.items():
        assert inspect.ismodule(names[short])
        assert names[short].__name__ == module
    assert names["s"].slim is compress.slim  # type: ignore[attr-defined]
    assert names["c"].couplings is compress.couplings  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_that_of_a_module(name: str) -> None:
    assert find_spec(f"compress.{name}") is None


# --- examples ---


def imports(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def shown() -> Iterator[tuple[str, str]]:
    """(where, code) of all Python that readers are shown; files of the package itself are not, as a page may show."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for number, block in enumerate(blocks(page, "python")):
            if not (block.title or "").startswith("compress/"):
                yield f"{page.name}, block {number}", block.text
    for path in (ROOT / "examples").glob("*.py"):
        yield path.name, path.read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield (
            path.name,
            "\n".join(line for part in code for line in part.splitlines() if not line.startswith(("%", "!"))),
        )


def test_no_example_imports_from_deeper() -> None:
    found = dict(shown())
    assert len(found) > 20
    assert sum("import compress" in code for code in found.values()) > 10
    deeper = {
        where: name
        for where, code in found.items()
        for name in imports(code)
        if name.startswith("compress.") and name not in PUBLIC
    }
    assert not deeper


def test_no_example_uses_what_there_is_not() -> None:
    """`compress.Name` in an example is a public name; recipes name modules of the reader's own."""
    for where, code in shown():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "compress":
                assert node.attr in compress.__all__, f"{where}: compress.{node.attr}"
