"""List every message of the program, with its place: `python docs/messages.py [KIND...]`.

Kinds: `error` (what a raised error says), `warning`, `note` (logged, and shown by commands), `next` (the command that
follows), and `text` (other sentences in the code: parts of messages, and lines that commands print). Values are shown
as the expressions in braces that compute them. `tests/docs/test_messages.py` checks what the messages name.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parents[1]

KINDS = ("error", "warning", "note", "next", "text")


@dataclass(frozen=True)
class Message:
    kind: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.text}"


def messages() -> list[Message]:
    """All of them, in the order of files and lines."""
    package = HOME / "compress"
    # `compress/export` and `compress/recipes` are links, which `rglob` would not follow.
    files = sorted({*package.rglob("*.py"), *(package / "export").rglob("*.py")})
    return [message for file in files for message in of_file(file.read_text(encoding="utf-8"), file.relative_to(HOME))]


def of_file(source: str, name: Path) -> list[Message]:
    tree = ast.parse(source)
    found, seen = list[Message](), {id(part) for node in _documentation(tree) for part in ast.walk(node)}
    for kind, node in _spoken(tree):
        for part in _texts(node, seen):
            if _shown(part):
                found.append(Message(kind, str(name), part.lineno, _shown(part)))
    for part in _texts(tree, seen):
        if len(_shown(part).split()) > 2:
            found.append(Message("text", str(name), part.lineno, _shown(part)))
    return sorted(found, key=lambda message: message.line)


def _documentation(tree: ast.Module) -> Iterator[ast.AST]:
    """Docstrings, the help of commands, and descriptions of keys and options: other pages list these."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("option", "described"):
                yield from node.args[:1]
            yield from (word.value for word in node.keywords if word.arg in ("help", "description"))


def _spoken(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """(kind, node) of what is known to be shown to people."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield "error", node.exc
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            name = called.rpartition(".")[2]
            if name == "warn":
                yield "warning", node
            elif name == "info" and called.lstrip("_").startswith("log"):
                yield "note", node
            elif called == "_line":
                yield "next", node
            elif name.endswith("Error") or name == "Refused":
                yield "error", node


def _texts(node: ast.AST, seen: set[int]) -> Iterator[ast.expr]:
    """The strings below a node that no one has taken yet, largest first."""
    if id(node) in seen:
        return
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        seen.add(id(node))
        yield node
        # Strings within its expressions are shown there.
        seen.update(id(inner) for inner in ast.walk(node))
        return
    for child in ast.iter_child_nodes(node):
        yield from _texts(child, seen)


def _shown(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"
        for part in node.values
        if isinstance(part, ast.Constant | ast.FormattedValue)
    )


def main() -> None:
    wanted = sys.argv[1:] or KINDS
    for message in messages():
        if message.kind in wanted:
            print(message)


if __name__ == "__main__":
    main()
