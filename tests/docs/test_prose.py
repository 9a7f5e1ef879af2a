"""The prose of pages, docstrings, comments and messages uses the words that other projects use."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocks import FENCED

ROOT = Path(__file__).parents[2]

ODD = re.compile(
    r"""\b(
      anew | of\ (?:one|its|their|your|our)(?:'s)?\ own | one's\ own | whoever | whatever
    | hangs?\ on | goes | stays? | stayed | (?:is|are|was|be|been)\ told | tells?\ of
    | what\ goes | comes?\ of | lies?\ in | stands?\ (?:for|in|at|on|where|here|there|between|beside)
    | such\ as\ is | that\ which | those\ that | thereby | wherein | hence | nothing\ else | but\ for | for\ want\ of
    | as\ it\ (?:is|was) | as\ they\ (?:are|were) | it\ be | not\ one | besides? | let\ go | are\ no | is\ no
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)


def of_markdown(text: str) -> Iterator[tuple[int, str]]:
    blank = FENCED.sub(lambda block: "\n" * block[0].count("\n"), text)
    for number, line in enumerate(blank.splitlines(), start=1):
        yield number, re.sub(r"`[^`]*`", "", line)


def of_python(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for number, line in enumerate(node.value.splitlines()):
                yield node.lineno + number, re.sub(r"`[^`]*`", "", line)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def of_yaml(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if found := re.search(r"(?:^|\s)#.*", line):
            yield number, found[0]


READERS = {".md": of_markdown, ".py": of_python, ".yaml": of_yaml}

if __name__ == "__main__":
    import sys
    n = 0
    for a in sys.argv[1:]:
        for number, line in READERS[Path(a).suffix](Path(a).read_text()):
            for m in ODD.finditer(line):
                n += 1
                print(f"{a}:{number}: [{m[0]}] {line.strip()}")
    print(n)
