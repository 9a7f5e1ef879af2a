"""The prose of pages, help texts, docstrings and comments uses standard words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocks import FENCED

ROOT = Path(__file__).parents[2]

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "recipes" / "README.md"])
RECIPES = sorted(ROOT.glob("recipes/*.yaml"))
FOLDERS = ("compress", "export", "benchmarks", "docs", "examples")
CODE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

ODD = re.compile(
    r"""\b(?:
        anew
      | one's\ own | of\ (?:its|their|your|our)\ own
      | hangs?\ on | hinges?\ on
      | (?:what|all\ that|which|network|layer|file|width|weight)\ goes | goes\ on
      | stays? | stayed
      | (?:is|are|was|were|be)\ told
      | comes?\ of | becomes?\ of
      | lies?\ in | lies\ beside
      | stands?\ (?:for|in|at|on|here|there|beside|where)
      | whoever | for\ want\ of | wherein | thereof
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)

ALLOWED = re.compile(r"workers of your own|(?:be|are) told apart", re.IGNORECASE)
"""Standard uses."""

MOST = {"benchmarks.md": 3}
"""Pages with more than one line of these words."""

MOST_IN_CODE = 12
"""Lines of docstrings, comments and help texts with these words, in all modules together."""


def of_markdown(text: str) -> Iterator[str]:
    """The lines of a page, without code."""
    for line in FENCED.sub("", text).splitlines():
        yield re.sub(r"`[^`]*`", "", line)


def of_python(text: str) -> Iterator[str]:
    """The lines of docstrings and comments, and the help texts and descriptions that are given by keyword."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) or (isinstance(node, ast.keyword) and node.arg in ("help", "description"))
    ]
    for found in texts:
        if isinstance(found, ast.Constant) and isinstance(found.value, str):
            yield from (re.sub(r"`[^`]*`", "", line) for line in found.value.splitlines())
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield re.sub(r"`[^`]*`", "", token.string)


def of_yaml(text: str) -> Iterator[str]:
    """The comments of a recipe."""
    yield from re.findall(r"(?:^|\s)#.*", text)


READERS = {".md": of_markdown, ".py": of_python, ".yaml": of_yaml}


def odd(path: Path) -> list[str]:
    """The lines of a file with one of the words."""
    lines = READERS[path.suffix](path.read_text(encoding="utf-8"))
    return [line.strip() for line in lines if ODD.search(ALLOWED.sub("", line))]


@pytest.mark.parametrize("path", [*PAGES, *RECIPES], ids=lambda path: path.name)
def test_pages_and_recipes_use_standard_words(path: Path) -> None:
    found = odd(path)
    assert len(found) <= MOST.get(path.name, 1), "\n".join(found)


def test_code_uses_standard_words() -> None:
    assert len(CODE) > 200
    found = [f"{path.relative_to(ROOT)}: {line}" for path in CODE for line in odd(path)]
    assert len(found) <= MOST_IN_CODE, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what it hangs on", True),
        ("a file of its own", True),
        ("the width stays", True),
        ("`stays` is a name", False),
        ("it depends on the file", False),
        ("a word that stands for another", True),
    ],
)
def test_the_words_are_found(text: str, expected: bool, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n```\nwhat it hangs on\n```\n\n{text}\n", encoding="utf-8")
    assert bool(odd(page)) == expected
