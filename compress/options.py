"""Options of dataclasses, described once for checks, documentation and the schema of recipes.

@dataclass(frozen=True)
class Taylor:
    samples: int | Literal["all"] = option("number of samples to score on", 5000, ge=1)

    def __post_init__(self) -> None:
        check_options(self)
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from compress.errors import InputError
from compress.wording import did_you_mean

_LARGEST = 2**64
"""Whole numbers beyond it fit nowhere."""

Rule = Callable[[Any, Mapping[str, Any]], str | None]
"""(value, the options before it) -> an error text, or None."""


@dataclass(frozen=True)
class Option:
    """The description of one option.

    doc: its meaning, in words.
    ge, gt, le, lt: bounds of a number.
    rule: checks a value together with the options before it.
    fill: the meaning of None in recipes, from the options before it.
    recipe: its key in recipes, if that differs.
    duration: in recipes it is a length of training such as "3 epochs", and here it is in optimizer steps.
    """

    doc: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    rule: Rule | None = None
    fill: Callable[[Mapping[str, Any]], Any] | None = None
    recipe: str | None = None
    duration: bool = False

    @property
    def bounds(self) -> dict[str, Any]:
        found = {key: getattr(self, key) for key in ("ge", "gt", "le", "lt")}
        return {key: value for key, value in found.items() if value is not None}


def option(doc: str, default: Any = MISSING, **description: Any) -> Any:
    """A field of a dataclass, with its `Option`."""
    field: Any = dataclasses.field(default=default, metadata={"option": Option(doc, **description)})
    return field


def options_of(owner: Any) -> dict[str, tuple[Option, Any, Any]]:
    """(description, type, default) of every option of a dataclass, by name; MISSING where there is no default."""
    described = [field for field in dataclasses.fields(owner) if "option" in field.metadata]
    # Hints of other fields may be of names that only a type checker imports.
    hints = get_type_hints(owner) if described else {}
    return {field.name: (field.metadata["option"], hints[field.name], field.default) for field in described}


def check_options(owner: Any) -> None:
    """Compare every option of a dataclass's object with its description; for its `__post_init__`.

    Raises:
        InputError: a value of another type, out of its bounds, or against its rule, or an unknown word.
    """
    before: dict[str, Any] = {}
    for name, (description, hint, _) in options_of(type(owner)).items():
        what, value = f"{type(owner).__name__}({name}=...)", getattr(owner, name)
        check(what, value, hint, **description.bounds)
        complaint = description.rule(value, before) if description.rule else None
        if complaint is not None:
            raise InputError(f"{what}: {complaint}")
        before[name] = value


def check(what: str, value: object, hint: Any, **bounds: float) -> None:
    """Compare a value with the type that it must have, such as `int | Literal["all"]`, and with bounds of a number.

    Args:
        what: the option as the user writes it, for the error text.

    Raises:
        InputError: it is something else.
    """
    kinds = _kinds(hint)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if isinstance(value, str) and str not in kinds and words:
        require_word(what, value, words)
    elif not any(_is_a(value, kind) for kind in kinds) or (
        not isinstance(value, bool) and isinstance(value, int | float) and not _within(value, bounds)
    ):
        raise InputError(f"{what}: found {value!r}; expected {_expected(kinds, words, bounds)}")


def require_word(what: str, value: object, words: Iterable[str]) -> None:
    """Raise InputError unless `value` is one of `words`, with the one that is spelled most like it."""
    known = list(words)
    if value in known and isinstance(value, str):
        return
    hint = did_you_mean(value, known) if isinstance(value, str) else ""
    raise InputError(f"{what}: found {value!r}; there is {', '.join(known)}{hint}")


def shown(value: object) -> str:
    """What was found, for an error text: a number or a word as it is, a class by its name, or else what it is."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)[:80]
    return f"an object of {type(value).__name__}"


def _kinds(hint: Any) -> list[Any]:
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def _is_a(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind in (bool, str, NoneType):
        return isinstance(value, kind)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
    if kind is float:
        return (isinstance(value, float) and math.isfinite(value)) or _is_a(value, int)
    return callable(value) and not isinstance(value, type)  # the only other kind of option


def _within(value: float, bounds: dict[str, float]) -> bool:
    tests = {"ge": float.__ge__, "gt": float.__gt__, "le": float.__le__, "lt": float.__lt__}
    return all(tests[name](float(value), float(bound)) for name, bound in bounds.items())


def _expected(kinds: list[Any], words: list[str], bounds: dict[str, float]) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "text", NoneType: "None"}
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = " and ".join(f"{signs[name]} {bound:g}" for name, bound in bounds.items())
    parts = [
        names.get(kind, "a function") + (f" {limits}" if limits and kind in (int, float) else "")
        for kind in kinds
        if get_origin(kind) is not Literal
    ]
    return " or ".join([*parts, *map(repr, words)])
