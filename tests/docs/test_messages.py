"""What messages name exists: commands, options, keys of recipes, Python's names, extras of the package."""

import importlib
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import messages
import pytest
import torch
import typer

from compress.cli import app
from compress.recipe.schema import json_schema

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {name: {option for word in command.params for option in word.opts} for name, command in COMMANDS.items()}

FOREIGN = {"--no-deps", "--nproc-per-node", "--head", "--address"}
"""Options of pip, torchrun and ray."""

WORDS = {
    *("accuracy", "batches", "pruned", "labels", "codes", "ahead"),  # arguments and results in Python, arrays of files
    *("input_shape", "image", "if", "drop", "key: value", "3 epochs", "1000 steps"),
}
"""What else is quoted with backticks."""


@cache
def every_message() -> list[messages.Message]:
    """Those of commands, without the ones of the paper's reproduction; seconds to list."""
    return [message for message in messages.messages() if "/paper/" not in message.file]


def said(pattern: str) -> list[tuple[str, re.Match[str]]]:
    """(place and text, match) of everything in messages that the pattern matches."""
    return [(str(message), found) for message in every_message() for found in re.finditer(pattern, message.text)]


def keys(schema: Any) -> set[str]:
    """All names of properties in a JSON schema."""
    if isinstance(schema, list):
        return set().union(*map(keys, schema))
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", {})).union(*map(keys, schema.values()))


def test_each_kind_of_message_is_found() -> None:
    source = """
def f():
    '''Not this one.'''
    raise InputError(f"{a!r} is wrong: {b:,} of {len('c')}" + (" there" if d else ""))
    warnings.warn("watch out", stacklevel=2)
    log.info("by the way")
    return _line("apply", recipe)
    x = option("a description")
    say(f"three words here")
"""
    found = [(message.kind, message.line, message.text) for message in messages.of_file(source, Path("f.py"))]
    assert found == [
        ("error", 4, "{a} is wrong: {b} of {len('c')}"),
        ("error", 4, " there"),
        ("warning", 5, "watch out"),
        ("note", 6, "by the way"),
        ("next", 7, "apply"),
        ("text", 9, "three words here"),
    ]
    assert {message.kind for message in every_message()} == set(messages.KINDS)
    assert {Path(message.file).parts[1] for message in every_message()} >= {
        "cli",
        "data",
        "export",
        "recipe",
        "run",
        "select",
    }


@pytest.mark.parametrize(
    ("place", "found"), said(r"\bcompress (?!import )([a-z_]+)((?: (?!with\b|and\b)[^\s`;,()]+)*)"), ids=str
)
def test_commands_exist(place: str, found: re.Match[str]) -> None:
    command, rest = found.groups()
    assert command in COMMANDS, place
    assert set(re.findall(r"--[a-z][a-z-]+", rest)) <= OPTIONS[command], place


def test_options_exist() -> None:
    known = set().union(*OPTIONS.values()) | FOREIGN
    unknown = [place for place, found in said(r"(?<![\w-])--[a-z][a-z-]+") if found[0] not in known]
    assert unknown == []


def test_keys_that_set_changes_exist() -> None:
    for place, found in said(r"--set '?([a-z_]+(?:\.\w+)*)="):
        assert set(re.sub(r"\.\d+", "", found[1]).split(".")) <= keys(json_schema()), place


def test_what_is_in_backticks_exists() -> None:
    known = keys(json_schema()) | WORDS
    for place, found in said(r"`([a-z_.]+)(:? ?[^`{}]*)`"):
        name, rest = found.groups()
        if found[0].strip("`") in WORDS or name in ("compress", "torch.save", "python", "ray") or "(" in rest:
            continue
        assert set(name.split(".")) <= known, place


def test_names_of_python_exist() -> None:
    for place, found in said(r"\b(compress|torch)((?:\.[A-Za-z_]+)+)"):
        at: Any = importlib.import_module(found[1])
        for name in found[2].strip(".").split("."):
            if not hasattr(at, name):
                importlib.import_module(f"{at.__name__}.{name}")
            at = getattr(at, name)
        assert at is not None, place
    assert torch.export.load


def test_extras_exist() -> None:
    file = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found = said(r"softprune\[([a-z]+)\]")
    assert found
    assert [place for place, name in found if name[1] not in extras] == []


PLAIN = ("goes on", "go on with", "hangs on", "hang on", "anew", "of one's own", "is told", "are told", "gone on")


def test_messages_are_plain_english() -> None:
    """No figures of speech, and no plural after a fixed number of one."""
    odd = [
        str(message) for message in every_message() if any(re.search(rf"\b{word}\b", message.text) for word in PLAIN)
    ]
    assert odd == []
    plural = r"(?<![\d.])\b1 (steps|epochs|images|samples|nodes|threads|cells|rows)\b"
    assert [str(message) for message in every_message() if re.search(plural, message.text)] == []
