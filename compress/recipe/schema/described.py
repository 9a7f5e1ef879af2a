"""Parts of the schema that are generated from a frozen dataclass of the core, with the descriptions of its options."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from inspect import cleandoc
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import Discriminator, Field, Tag, ValidationInfo, create_model, field_validator

from compress.duration import Duration
from compress.options import Option, options_of
from compress.recipe.schema.parts import DurationText, Part

P = TypeVar("P", bound="Described")


class Described(Part):
    """A part whose keys are the options of `member`."""

    member: ClassVar[type[Any]]

    @classmethod
    def keys(cls) -> dict[str, str]:
        """The key of each option by the option's name; options without a key in recipes are left out."""
        found = {name: option.recipe or name for name, (option, _, _) in options_of(cls.member).items()}
        return {name: key for name, key in found.items() if key in cls.model_fields}

    def options(self) -> dict[str, Any]:
        """The member's options by name, with the recipe's values."""
        return {name: getattr(self, key) for name, key in self.keys().items()}


def part_of(
    base: type[P], member: type[Any], words: tuple[str, ...] = (), without: Mapping[str, Any] | None = None
) -> type[P]:
    """The part of the schema for `member`, named and documented like it.

    Args:
        words: its names, the values of the key `kind`; without names, the part does not have that key.
        without: options decided by the name.
    """
    keys: dict[str, Any] = {"kind": (Literal[words], ...)} if words else {}
    rules: dict[str, Any] = {}
    for name, (option, hint, default) in options_of(member).items():
        if name in (without or {}):
            continue
        key = option.recipe or name
        keys[key] = _field(option, hint, default)
        if option.rule is not None or option.fill is not None:
            rules[f"_{key}_rule"] = field_validator(key)(_validator(option, base))
    meaning = " ".join(cleandoc(member.__doc__ or "").partition("\n\n")[0].split())
    home = base.__module__
    made: type[P] = create_model(
        member.__name__, __base__=base, __module__=home, __doc__=meaning, __validators__=rules, **keys
    )
    made.member = member
    setattr(sys.modules[home], made.__name__, made)  # where pickle looks for it, between the processes of a sweep
    return made


def _field(option: Option, hint: Any, default: Any) -> tuple[Any, Any]:
    kinds = list(get_args(hint)) if get_origin(hint) not in (None, Literal) else [hint]
    described: dict[str, Any] = {"description": option.doc}
    if option.duration:
        described["default"] = Duration(default, "steps") if isinstance(default, int) else None
        return (DurationText if isinstance(default, int) else DurationText | None), Field(**described)
    if default is not MISSING:
        described["default"] = default
    if option.fill is not None:
        described["validate_default"] = True
    numbers = [kind for kind in kinds if kind in (int, float)]
    words = [kind for kind in kinds if get_origin(kind) is Literal]
    if numbers and words:
        return _word_or_count(words[0], Annotated[numbers[0], Field(**option.bounds)]), Field(**described)
    kind: Any = next(kind for kind in [*words, *kinds] if kind is not NoneType)
    return (kind | None if NoneType in kinds else kind), Field(**described, **option.bounds)


def _word_or_count(words: Any, number: Any) -> Any:
    def form(value: object) -> str:
        return "word" if isinstance(value, str) else "count"

    return Annotated[Annotated[words, Tag("word")] | Annotated[number, Tag("count")], Discriminator(form)]


def _validator(option: Option, base: type[Described]) -> Callable[[type[Described], Any, ValidationInfo], Any]:
    def validator(cls: type[Described], value: Any, info: ValidationInfo) -> Any:
        names = {key: name for name, key in cls.keys().items()}
        before = {names[key]: found for key, found in info.data.items() if key in names}
        if option.rule is not None and (complaint := option.rule(value, before)) is not None:
            raise ValueError(complaint)
        return value if option.fill is None or value is not None else option.fill(before)

    return validator
