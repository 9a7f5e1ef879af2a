"""The generated parts of the reference say what schema and command line say, and leave nothing out."""

import re
from collections.abc import Callable
from typing import get_args

import pytest
import reference
from typer.testing import Result

from compress.cli import COMMANDS
from compress.recipe.schema import criterion

RECIPES = (reference.DOCS / "recipes.md").read_text(encoding="utf-8")
COMMANDS_PAGE = (reference.DOCS / "commands.md").read_text(encoding="utf-8")


def marked(what: str) -> list[str]:
    return [name for names in re.findall(rf"<!-- {what}: ([\w ]+) -->", RECIPES) for name in names.split()]


@pytest.mark.parametrize("path", reference.FILES, ids=lambda path: path.name)
def test_the_reference_is_current(path: reference.Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert reference.filled(text) == text, "write it anew: python docs/reference.py"


def test_the_schema_of_results_is_current() -> None:
    written = reference.SCHEMA.read_text(encoding="utf-8")
    assert reference.results_schema() == written, "write it anew: python docs/reference.py"


def test_every_part_of_a_recipe_is_shown_once() -> None:
    assert sorted(marked("keys")) == sorted(set(reference.definitions()) - {"JsonValue"})
    assert set(marked("forms")) < set(marked("keys"))


def test_criteria_stand_where_they_may_be_used() -> None:
    both, weights, nodes = (
        section.partition("-->")[0].split()
        for section in re.findall(r"<!-- forms: (.* -->)", RECIPES.partition("### criteria")[2])
    )
    assert weights == [form.__name__ for form in get_args(criterion.ForWeights)]
    assert nodes == [form.__name__ for form in get_args(criterion.ForNodes)]
    shown = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in rows("### criteria")))
    assert set(get_args(criterion.CriterionName)) <= set(shown)
    assert len(both) + len(weights) + len(nodes) == len(get_args(get_args(criterion.AnyCriterion)[0]))


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
