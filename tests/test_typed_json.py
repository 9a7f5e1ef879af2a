"""The schema of a TypedDict says what the type says; a document is held against it to the first wrong key."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from compress.typed_json import LONGEST, Limits, also, first_mistake, schema

Count = Annotated[int, Limits(minimum=0)]


class Leaf(TypedDict):
    """A leaf.

    With more to say.
    """

    name: str
    size: Annotated[Count, "How large."]


@also(additionalProperties=True, dependentRequired={"left": ["right"]})
class Tree(TypedDict):
    kind: Literal["oak", "elm"]
    leaves: list[Leaf]
    by_name: dict[Annotated[str, Limits(pattern="^[a-z]+$")], Leaf]
    height: Annotated[float, Limits(minimum=0)] | None
    anything: object
    left: NotRequired[Leaf | None]
    right: NotRequired[Annotated[Leaf, "To the right."]]


LEAF = {"name": "a", "size": 1}


def tree(**changed: Any) -> dict[str, Any]:
    return {"kind": "oak", "leaves": [LEAF], "by_name": {"a": LEAF}, "height": None, "anything": [1], **changed}


def test_the_schema_says_all_of_the_type() -> None:
    found = schema(Tree, "a tree")
    Draft202012Validator.check_schema(found)
    assert found == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a tree",
        "type": "object",
        "required": ["kind", "leaves", "by_name", "height", "anything"],
        "properties": {
            "kind": {"enum": ["oak", "elm"]},
            "leaves": {"type": "array", "items": {"$ref": "#/$defs/Leaf"}},
            "by_name": {
                "type": "object",
                "propertyNames": {"type": "string", "pattern": "^[a-z]+$"},
                "additionalProperties": {"$ref": "#/$defs/Leaf"},
            },
            "height": {"type": ["number", "null"], "minimum": 0},
            "anything": {},
            "left": {"anyOf": [{"$ref": "#/$defs/Leaf"}, {"type": "null"}]},
            "right": {"$ref": "#/$defs/Leaf", "description": "To the right."},
        },
        "additionalProperties": True,
        "dependentRequired": {"left": ["right"]},
        "$defs": {
            "Leaf": {
                "description": "A leaf. With more to say.",
                "type": "object",
                "required": ["name", "size"],
                "properties": {
                    "name": {"type": "string"},
                    "size": {"type": "integer", "minimum": 0, "description": "How large."},
                },
                "additionalProperties": False,
            }
        },
    }


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        ([], "the document: [] is not of type 'object'"),
        ({}, "kind is missing"),
        (tree(kind="ash"), "kind: 'ash' is not one of ['oak', 'elm']"),
        (tree(leaves=[{"name": "a", "size": 1}, {"name": "b"}]), "leaves.1.size is missing"),
        (tree(leaves=[{"name": "a", "size": -1}]), "leaves.0.size: -1 is less than the minimum of 0"),
        (tree(leaves=[{"name": "a", "size": True}]), "leaves.0.size: True is not of type 'integer'"),
        (tree(by_name={"a": {"name": 1, "size": 1}}), "by_name.a.name: 1 is not of type 'string'"),
        (tree(by_name={"A": {"name": "a", "size": 1}}), "by_name: 'A' does not match '^[a-z]+$'"),
        (tree(height="high"), "height: 'high' is not of type 'number', 'null'"),
        (tree(height=float("inf")), "height: inf is not of type 'number', 'null'"),
        (tree(leaves=[{"name": "a", "size": 10**400}]), f"leaves.0.size: {10**400}"[:LONGEST] + "..."),
        (tree(height=-1), "height: -1 is less than the minimum of 0"),
        (tree(left=1, right=LEAF), "left: 1 is not valid under any of the given schemas"),
        (tree(left=LEAF), "the document: 'right' is a dependency of 'left'"),
    ],
)
def test_the_first_mistake_is_told_with_its_place(document: object, mistake: str) -> None:
    assert first_mistake(document, Tree) == mistake


def test_what_fits_has_no_mistake() -> None:
    assert first_mistake(tree(), Tree) is None
    assert first_mistake(tree(left=LEAF, right=LEAF, height=2), Tree) is None


def test_a_key_of_a_later_version_is_none() -> None:
    assert first_mistake(tree(leaves=[{"name": "a", "size": 1, "colour": "green"}], extra=1), Tree) is None


def test_a_mistake_is_short_however_long_the_value() -> None:
    mistake = first_mistake(tree(leaves="x" * 100_000), Tree)
    assert mistake is not None
    assert len(mistake) == LONGEST + 3


def test_a_type_that_json_has_not_is_no_schema() -> None:
    class Wrong(TypedDict):
        found: set[int]

    with pytest.raises(TypeError, match=r"set\[int\] has no JSON schema here"):
        schema(Wrong, "wrong")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "oak", "elm"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "size", "a", "A"]), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.sampled_from(["kind", "leaves", "by_name", "height", "left"]), VALUES)
def test_a_mistake_is_found_where_the_schema_finds_one(key: str, value: object) -> None:
    """jsonschema's own verdict on the whole, where no key is unknown."""
    document = tree(**{key: value})
    errors = Draft202012Validator(schema(Tree, "")).iter_errors(document)
    known = [error for error in errors if not error.message.startswith("Additional properties")]
    assert (first_mistake(document, Tree) is not None) == bool(known)
