"""All that changes the disk in the package is listed in docs/reliability.md, with what protects others' files."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for part in ("compress", "export") for path in (ROOT / part).rglob("*.py"))

ALWAYS = {
    *("rmtree", "unlink", "rmdir", "removedirs", "rename", "renames", "mkdir", "makedirs", "touch", "truncate"),
    *("symlink", "symlink_to", "link", "hardlink_to", "chmod", "chown", "write_text", "write_bytes", "extractall"),
    *("mkdtemp", "mkstemp", "TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory", "SpooledTemporaryFile"),
    *("save", "save_file", "savez", "savefig", "tofile", "FileIO", "FileLock", "SummaryWriter", "JournalFileBackend"),
    "atomic",
}
"""Names of calls that change the disk, whoever has them."""


def changes(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(outermost function or class and method, operation) of each call that changes the disk."""
    taken = {
        name.asname or name.name: f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    for place, call in calls(tree, ""):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        whole = f"{owner}.{name}" if owner else taken.get(name, name)
        if name in ALWAYS or whole.startswith("shutil.") or is_change(name, whole, call):
            yield place, name
        if any(word.arg == "download" and getattr(word.value, "value", None) is True for word in call.keywords):
            yield place, "download"


def is_change(name: str, whole: str, call: ast.Call) -> bool:
    """Of names that others have too: texts and dataclasses replace, hooks and lists remove, files are read."""
    match name:
        case "replace":
            return "." in whole and whole != "dataclasses.replace" and (whole == "os.replace" or len(call.args) == 1)
        case "remove":
            return whole in ("os.remove", "compress.files.atomic.remove")
        case "open":
            words = [ast.unparse(word) for word in (*call.args, *(keyword.value for keyword in call.keywords))]
            return any(re.fullmatch(r"'[rbt]*[wax+][wax+bt]*'", word) or "O_RDWR" in word for word in words)
        case "fdopen":
            return True
    return False


def calls(tree: ast.AST, place: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        inner = ".".join((*place.split("."), node.name)[-2:]).strip(".") if named else place
        if isinstance(node, ast.Call):
            yield place, node
        yield from calls(node, inner)


def found() -> dict[str, str]:
    """Operations by place, such as "compress/files/atomic.py `remove`"."""
    places: dict[str, set[str]] = {}
    for path in SOURCES:
        for place, operation in changes(ast.parse(path.read_text(encoding="utf-8"))):
            places.setdefault(f"`{path.relative_to(ROOT).as_posix()}` `{place}`", set()).add(operation)
    return {place: ", ".join(sorted(operations)) for place, operations in places.items()}


def listed() -> dict[str, str]:
    """The same, as docs/reliability.md has it; each row says what protects the files of others."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.partition("\n### Every write to the disk\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`\S+` `\S+`) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    assert len({place for place, _, _ in rows}) == len(rows)
    assert all(len(protection) > 5 for _, _, protection in rows)
    return {place: operations for place, operations, _ in rows}


def test_each_change_of_the_disk_is_listed() -> None:
    assert len(SOURCES) > 150
    assert found() == listed()


def test_nothing_is_removed_with_all_that_is_in_it() -> None:
    """Nor moved to where it may replace something."""
    operations = {operation for operations in found().values() for operation in operations.split(", ")}
    assert "unlink" in operations
    assert not operations & {"rmtree", "removedirs", "renames", "move", "copytree"}


@pytest.mark.parametrize(
    ("code", "operation"),
    [
        ("shutil.rmtree(path)", "rmtree"),
        ("from shutil import rmtree as away\naway(path)", "away"),
        ("from os import unlink\nunlink(path)", "unlink"),
        ("path.unlink(missing_ok=True)", "unlink"),
        ("os.replace(a, b)", "replace"),
        ("path.replace(other)", "replace"),
        ("path.open('w', encoding='utf-8')", "open"),
        ("open(path, 'xb')", "open"),
        ("open(path, mode='r+')", "open"),
        ("os.open(path, os.O_RDWR | os.O_CREAT)", "open"),
        ("np.savez(path)", "savez"),
        ("MNIST(root, download=True)", "download"),
        ("shutil.copyfileobj(a, b)", "copyfileobj"),
        ("from compress.files.atomic import remove\nremove(path)", "remove"),
        ("text.replace('a', 'b')", None),
        ("replace(cell, level=1)", None),
        ("hook.remove()", None),
        ("open(path, 'rb')", None),
        ("journal.open(mark, clock)", None),
        ("from dataclasses import replace\nreplace(setting)", None),
    ],
)
def test_changes_are_told_from_what_only_looks_like_one(code: str, operation: str | None) -> None:
    assert [name for _, name in changes(ast.parse(code))] == ([] if operation is None else [operation])
