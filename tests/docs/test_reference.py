"""The generated parts of the reference say what schema and command line say, and leave nothing out."""

import re
from collections.abc import Callable

import pytest
import reference
from typer.testing import Result

from compress.cli import COMMANDS
from compress.select.criteria import CRITERIA

RECIPES = (reference.DOCS / "recipes.md").read_text(encoding="utf-8")
COMMANDS_PAGE = (reference.DOCS / "commands.md").read_text(encoding="utf-8")


def marked(what: str) -> list[str]:
    found = re.findall(rf"<!-- {what}: ([\w ]+) -->", RECIPES)
    return [name for names in found for name in reference.expanded(names)]


@pytest.mark.parametrize("path", reference.FILES, ids=lambda path: path.name)
def test_the_reference_is_current(path: reference.Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert reference.filled(text) == text, "regenerate it: python docs/reference.py"


def test_the_schema_of_results_is_current() -> None:
    written = reference.SCHEMA.read_text(encoding="utf-8")
    assert reference.results_schema() == written, "regenerate it: python docs/reference.py"


def test_every_part_of_a_recipe_is_shown_once() -> None:
    assert sorted(marked("keys")) == sorted(set(reference.definitions()) - {"JsonValue"})
    assert set(marked("forms")) < set(marked("keys"))


def test_criteria_stand_where_they_may_be_used() -> None:
    families = re.findall(r"<!-- forms: (\w+) -->", RECIPES.partition("### criteria")[2])
    assert families == ["criteria_for_both", "criteria_for_weights", "criteria_for_nodes"]
    both, weights, nodes = (set(reference.expanded(name)) for name in families)
    assert {"Magnitude", "Taylor"} <= both
    assert {"Lamp", "OBD"} <= weights
    assert {"Norms", "PrincipalAxes"} <= nodes
    assert len(both) + len(weights) + len(nodes) == len(CRITERIA)
    shown = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in rows("### criteria")))
    assert {word for member in CRITERIA for word in member.words} <= set(shown)


def rows(heading: str) -> list[str]:
    return [line for line in RECIPES.partition(heading)[2].splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("command", [command.__name__ for command in COMMANDS])
def test_every_option_of_a_command_is_shown(command: str, run: Callable[..., Result]) -> None:
    """Against the help that a reader sees, which typer writes."""
    section = COMMANDS_PAGE.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    shown = set(re.findall(r"(?<=`)--[\w-]+(?=`)", "".join(line.split(" | ")[0] for line in section.splitlines())))
    helped = run(command, "--help", env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).stdout
    said = set(re.findall(r"(?<=\s)--[a-z-]+(?=\s)", re.sub(r"[│╭╮╰╯─]", " ", helped)))
    assert shown
    assert shown == said - {"--help"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number from 0, below 1"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "whole number from 1"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, "list of `a`, `b`"),
        ({"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}, "[the letters](#the-letters)"),
        ({"oneOf": [{"const": "all"}, {"type": "boolean"}]}, "`all` or `true`, `false`"),
    ],
)
def test_values_in_words(value: dict[str, object], words: str) -> None:
    assert reference.shown_value(value, {"A": "the letters", "B": "the letters"}) == words


def test_help_texts_keep_their_letters() -> None:
    assert reference.prose("a_b|c\n {k: *} `d_e`") == r"a\_b\|c `{k: *}` `d_e`"
