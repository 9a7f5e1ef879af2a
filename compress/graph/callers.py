"""Find the place in the user's code, for refusals and for conditions that only raise errors."""

import ast
import linecache
import sys
from pathlib import Path
from types import FrameType, TracebackType

import torch

_OWN, _TORCH = (f"{Path(str(module.__file__)).parent}/" for module in (sys.modules["compress"], torch))
# Frames between an operator's call and the recorder.
_BETWEEN = (f"{_TORCH}utils/_python_dispatch.py", f"{_TORCH}_dynamo/", f"{_TORCH}_compile.py", f"{_TORCH}_tensor.py")


def guarded() -> bool:
    """Whether the line that reads a value is only a check: an assertion, or an `if` that only raises an error.

    Such a condition does not decide what is computed. The line may be in the user's code or in a library that it calls.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_OWN, *_BETWEEN)):
        frame = frame.f_back
    return any(_only_checks(statement) for statement in _statements(frame))


def place_of(traceback: TracebackType | None) -> str:
    """The innermost line of the user's code in a traceback, as "file.py, line 3: `text`"; "" where there is none."""
    found = None
    while traceback is not None:
        if not _is_library(traceback.tb_frame):
            found = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
    if found is None:
        return ""
    text = linecache.getline(*found).strip()
    return f"{found[0]}, line {found[1]}" + (f": `{text}`" if text else "")


def _is_library(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith((_OWN, _TORCH, "<"))


def _statements(frame: FrameType) -> list[ast.stmt]:
    """Those whose lines the frame is in."""
    try:
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename)))
    except SyntaxError:
        return []
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return [node for node in statements if node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno)]


def _only_checks(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return not statement.orelse and all(isinstance(entry, ast.Raise) for entry in statement.body)
    return isinstance(statement, ast.Assert)
