"""The JSON schema of a TypedDict, and the check of a document against it.

`Annotated` adds what Python's types cannot say: text is a description, `Limits` are keywords of JSON schema. `also`
adds keywords to a TypedDict as a whole.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

Schema = dict[str, object]

_SIMPLE: dict[object, str] = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}
_KEYWORDS = "__json_schema__"

LONGEST = 200
"""Characters of a mistake that are shown: a wrong value may be of any size."""


class Limits:
    """Keywords of JSON schema for the type before it."""

    def __init__(self, **keywords: object) -> None:
        self.keywords = keywords


def also(**keywords: object) -> Callable[[type], type]:
    """Keywords of JSON schema for the decorated TypedDict."""

    def keep(described: type) -> type:
        setattr(described, _KEYWORDS, keywords)
        return described

    return keep


def schema(described: type, title: str) -> Schema:
    """The JSON schema of a TypedDict, with all that it holds under "$defs"."""
    definitions: dict[str, Schema] = {}
    _schema_of(described, definitions)
    whole = definitions.pop(described.__name__)
    head: Schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return {**head, **whole, "$defs": definitions}


def _schema_of(kind: object, definitions: dict[str, Schema]) -> Schema:
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if kind is object:
        return {}
    if isinstance(kind, type) and is_typeddict(kind):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = _of_typed_dict(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(_schema_of(inner[0], definitions), inner[1:])
    if origin is NotRequired:
        return _schema_of(inner[0], definitions)
    if origin is Literal:
        return {"const": inner[0]} if len(inner) == 1 else {"enum": list(inner)}
    if origin in (Union, UnionType):
        return _any_of([_schema_of(form, definitions) for form in inner])
    if origin is list:
        return {"type": "array", "items": _schema_of(inner[0], definitions)}
    if origin is dict:
        names, values = (_schema_of(part, definitions) for part in inner)
        limits = {} if names == {"type": "string"} else {"propertyNames": names}
        return {"type": "object", **limits, "additionalProperties": values}
    raise TypeError(f"{kind} has no JSON schema here")


def _any_of(forms: Sequence[Schema]) -> Schema:
    """As one schema where it can be, for the sake of its mistakes: keywords of one type say nothing of another."""
    types = [form.get("type") for form in forms]
    if not all(types):
        return {"anyOf": forms}
    return {keyword: value for form in forms for keyword, value in form.items()} | {"type": types}


def _annotated(found: Schema, notes: Iterable[str | Limits]) -> Schema:
    """The outermost text says what a value is for, and so is the description."""
    for note in notes:
        found = {**found, "description": note} if isinstance(note, str) else {**found, **note.keywords}
    return found


def _of_typed_dict(described: type, definitions: dict[str, Schema]) -> Schema:
    hints = get_type_hints(described, include_extras=True)
    required: frozenset[str] = described.__required_keys__  # type: ignore[attr-defined]
    return {
        **({"description": " ".join(described.__doc__.split())} if described.__doc__ else {}),
        "type": "object",
        "required": [name for name in hints if name in required],
        "properties": {name: _schema_of(hint, definitions) for name, hint in hints.items()},
        "additionalProperties": False,
        **getattr(described, _KEYWORDS, {}),
    }


@cache
def _validator(described: type) -> Any:
    """A validator of jsonschema, for which numbers are those that a float can hold: JSON has 1e999 too."""
    from jsonschema import Draft202012Validator, validators  # takes longer than all else of `compress report`

    def finite(name: str) -> Callable[[object, Any], bool]:
        return lambda _, value: usual.is_type(value, name) and abs(value) <= sys.float_info.max

    usual = Draft202012Validator.TYPE_CHECKER
    numbers = usual.redefine_many({name: finite(name) for name in ("number", "integer")})
    return validators.extend(Draft202012Validator, type_checker=numbers)(schema(described, described.__name__))


def first_mistake(document: object, described: type) -> str | None:
    """Where the document does not fit the TypedDict, and why: "stages.0.steps: ..."; None where it fits.

    Unknown keys are allowed: they may be of a later version.
    """
    for error in _validator(described).iter_errors(document):
        if error.validator == "additionalProperties" and error.validator_value is False:
            continue
        place, said = [*error.absolute_path], f": {error.message}"
        if error.validator == "required":
            place.append(next(name for name in error.validator_value if name not in error.instance))
            said = " is missing"
        text = ".".join(map(str, place)) + said if place else f"the document{said}"
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return None
