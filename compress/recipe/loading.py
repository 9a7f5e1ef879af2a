"""Load recipes from YAML files, with `--set` overrides; report all mistakes at once, with line, key and way out."""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLWarning
from ruamel.yaml.scalarbool import ScalarBoolean

from compress.errors import RecipeError
from compress.files.bounded import read_bytes, strange
from compress.files.yaml_text import yaml_text
from compress.recipe.schema import FORMS, Part, Recipe
from compress.recipe.shipped import shipped_files
from compress.wording import because, count_of, did_you_mean, missing, nearest, similar

MAX_BYTES = 64 * 1024
MAX_VALUES = 10_000  # of the document with its aliases written out
MAX_DEPTH = 32
MAX_INTEGER = 2**63  # in either direction; Python refuses to print more than 4,300 digits
MAX_SHOWN = 200  # characters of a `--set` in messages
MAX_BITS = 1024  # of a whole number, as large as a float can be
YAML_FILES = (".yaml", ".yml")
MODELS = (".pt", ".pth", ".safetensors", ".pt2", ".onnx")  # often passed by mistake in place of a recipe

Key = tuple[str | int, ...]
Line = int
Location = Line | str  # a line of the file, or the `--set` that brought the value


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        source: a file, or the bare name of a shipped recipe ("mnist_ae").
        overrides: arguments of `--set`, "stages.0.sparsity=0.9": list entries are numbers, the value is YAML.

    Raises:
        RecipeError: all mistakes, one per line, as `file:line: key.path: what was found, what is needed`.
    """
    document = _read(source)
    overrides_amiss = []
    for text in overrides:
        try:
            document.override(text)
        except RecipeError as error:
            overrides_amiss.append(str(error))
    try:
        recipe = Recipe.model_validate(document.value)
    except ValidationError as error:
        raise RecipeError("\n".join([*document.explain(error.errors(include_url=False)), *overrides_amiss])) from None
    if overrides_amiss:
        raise RecipeError("\n".join(overrides_amiss))
    return recipe


def place(source: str | Path, overrides: Sequence[str], key: str) -> str:
    """Where a key such as "stages.0.target", or its nearest parent, was written: `file:line: stages.0.target`.

    Args:
        source, overrides: the arguments of `load_recipe`.
    """
    document = _read(source)
    for text in overrides:
        document.override(text)
    parts = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    return f"{document.at(document.nearest(parts))}: {key}"


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe with its defaults written out, as YAML that loads as an equal recipe."""
    return yaml_text(recipe.model_dump(mode="json", exclude_none=True))


def brief_yaml(recipe: Recipe) -> str:
    """What the recipe prunes, and in which network, without defaults."""
    stages = {"__all__": {"target", "criterion", "scope", "sparsity", "params", "macs", "removal"}}
    parts: Any = {"name": True, "model": True, "stages": stages}
    return yaml_text(recipe.model_dump(mode="json", exclude_defaults=True, include=parts))


# --- reading -------------------------------------------------------------------------------------------------------


def _read(source: str | Path) -> "_Document":
    label, content = _content(source)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"{label}:{line}: byte {content[error.start]:#04x} is not UTF-8 text; save the file as UTF-8"
        ) from None
    document = _Document(label)
    node = _parse(text, document.at)
    if not isinstance(node, Mapping):
        found = "nothing" if node is None else _shown(_plain(node, document.at))
        raise RecipeError(
            f"{document.at(1)}: found {found}; a recipe is a mapping with keys such as name, model, stages"
        )
    document.value = _plain(node, document.at, document.places)
    return document


def _content(source: str | Path) -> tuple[str, bytes]:
    """(what to call it in messages, its bytes)."""
    path, files = Path(source), shipped_files()
    if path.suffix in MODELS:
        raise RecipeError(f"{source}: found a model, not a recipe; the recipe comes first: RECIPE MODEL")
    try:
        # An output folder may have the recipe's name; it does not hide the recipe.
        if path.is_dir() and str(source) not in files:
            raise RecipeError(f"{source}: is a folder; name a recipe file in it")
        if kind := strange(path) if not path.is_dir() else None:
            raise RecipeError(
                f"{source}: is {kind}; a recipe is read again by the commands that follow, so write it to a file"
            )
        if path.exists() and not path.is_dir():
            return str(source), read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise RecipeError(f"{source}: cannot be read: {because(error)}") from None
    except ValueError as error:  # a NUL in the path, too
        raise RecipeError(f"{_one_line(source)}: {error}; is it the right file?") from None
    if str(source) in files:
        return f"recipes/{source}.yaml", files[str(source)].read_bytes()
    raise RecipeError(_missing(source, files))


def _missing(source: str | Path, files: Iterable[str]) -> str:
    path = Path(source)
    close, is_path = nearest(path.stem, files), path.suffix in YAML_FILES or path.parent != Path()
    if close and not (is_path and similar(path)):
        return f"{source}: no such file, and no shipped recipe of that name; did you mean {close}?"
    if is_path or similar(path):
        return missing(source, "`compress recipes` lists the shipped recipes")
    return f"{source}: no such file, and no shipped recipe of that name; `compress recipes` lists them"


def _parse(text: str, at: Callable[[Line], str]) -> Any:
    """ruamel's round-trip tree: it knows its lines, refuses duplicate keys, and reads 1e-3 as a number."""
    try:
        with warnings.catch_warnings():
            # ruamel only warns of ambiguous text: a duplicate anchor, 1e-3 in a document of YAML 1.1.
            warnings.simplefilter("error", YAMLWarning)
            return YAML().load(text)
    except DuplicateKeyError as error:
        twice = re.search(r'duplicate key "(.*?)" with', str(error.problem), re.DOTALL)
        key = f"{_one_line(twice[1])}: " if twice else ""
        raise RecipeError(f"{at(error.problem_mark.line + 1)}: {key}appears twice; keep one of the two") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        if "'\\t'" in str(error.problem):
            raise RecipeError(f"{at(line)}: found a tab; YAML is indented with spaces") from None
        raise RecipeError(
            f"{at(line)}: not YAML: {_one_line(error.problem)}; check punctuation and indentation"
        ) from None
    except RecursionError:
        raise RecipeError(f"{at(1)}: nested deeper than {MAX_DEPTH} levels; write it flatter") from None
    except Exception as error:  # ruamel lets whatever a malformed date, number or tag raises pass through
        if "set_int_max_str_digits" in str(error):  # Python's message addresses programmers
            raise RecipeError(f"{at(1)}: found a whole number of thousands of digits; write a smaller one") from None
        raise RecipeError(f"{at(1)}: not YAML: {_one_line(error)}; quote values that are text") from None


def _plain(
    node: Any, at: Callable[[Line], str], places: dict[Key, Location] | None = None, key: Key = (), line: Line = 1
) -> Any:
    """The tree as plain dicts, lists and scalars, aliases written out; fills `places` with the line of every key."""
    places = {} if places is None else places
    places[key] = line
    if len(places) > MAX_VALUES:
        raise RecipeError(f"{at(line)}: more than {MAX_VALUES} values, aliases written out; write a smaller recipe")
    if getattr(getattr(node, "tag", None), "value", None):
        raise RecipeError(
            f"{at(line)}: {_dotted(key)}: found the YAML tag {node.tag.value}; write the value without it"
        )
    if len(key) > MAX_DEPTH:
        raise RecipeError(f"{at(line)}: nested deeper than {MAX_DEPTH} levels; write it flatter")

    def below(entry: str | int, name: Any) -> Any:
        known = node.lc.data or {}
        # A merged key (<<) does not have its own line.
        return _plain(node[name], at, places, (*key, entry), known[name][0] + 1 if name in known else line)

    match node:
        case Mapping():
            return {str(name): below(str(name), name) for name in node}
        case list():
            return [below(index, index) for index in range(len(node))]
        case bool() | ScalarBoolean():
            return bool(node)
        case int() if node.bit_length() > MAX_BITS:
            raise RecipeError(
                f"{at(line)}: {_dotted(key)}: found a whole number of {count_of(node.bit_length(), 'bit')}; "
                f"no key takes more than {MAX_BITS:,}"
            )
        case int():
            if abs(node) >= MAX_INTEGER:
                digits = f"{int(node).bit_length() * math.log10(2):,.0f}"
                where = f"{at(line)}: {_dotted(key)}" if key else at(line)
                raise RecipeError(f"{where}: found a whole number of some {digits} digits; write a smaller one")
            return int(node)
        case float():
            return float(node)
        case str():
            return str(node)
        case None | date():
            return node  # no key accepts a date; the schema says what it needs
        case _:
            raise RecipeError(f"{at(line)}: {_dotted(key)}: found {_shown(node)} with a YAML tag; write it without one")


@dataclass
class _Document:
    """A recipe as plain values, with the place where each was written."""

    label: str
    value: Any = None
    places: dict[Key, Location] = field(default_factory=dict)

    def at(self, place: Location) -> str:
        return place if isinstance(place, str) else f"{self.label}:{place}"

    def nearest(self, key: Key) -> Location:
        """The place of `key` or, where that was not written, of the key above it."""
        return next(self.places[key[:end]] for end in range(len(key), -1, -1) if key[:end] in self.places)

    def override(self, text: str) -> None:
        """Apply "a.b=c"; missing mappings on the way are created, since only the schema knows all keys.

        Raises RecipeError if a list entry does not exist, or a value on the way is neither a mapping nor a list.
        """
        place = f"--set {_cut(_one_line(text), MAX_SHOWN)}"
        dotted, equals, yaml = text.partition("=")
        parts = dotted.strip().split(".")
        if not equals or not all(parts):
            raise RecipeError(f"{place}: needs a key and a value, as in --set stages.0.sparsity=0.9")
        value = _plain(_parse(yaml, lambda _: place), lambda _: place)
        node: Any = self.value
        key: Key = ()
        for part in parts[:-1]:
            key = (*key, _entry(node, part, key, place))
            if isinstance(node, dict) and node.get(key[-1]) is None:
                node[key[-1]] = {}
                self._mark(key, place)
            node = node[key[-1]]
        key = (*key, _entry(node, parts[-1], key, place))
        node[key[-1]] = value
        self._mark(key, place)

    def _mark(self, key: Key, place: str) -> None:
        self.places = {old: where for old, where in self.places.items() if old[: len(key)] != key}
        self.places[key] = place

    def explain(self, details: Iterable[ErrorDetails]) -> list[str]:
        """One line per mistake: those of the file in order, then those of the overrides."""
        mistakes: list[tuple[Location, str]] = []
        for detail in details:
            # pydantic counts only the valid entries of a list, and reports the others separately.
            if detail["type"] == "too_short" and detail["input"]:
                continue
            key, owner = _meant(detail)
            if detail["type"] == "union_tag_invalid" and isinstance(self._value(key), dict):
                key = (*key, detail["ctx"]["discriminator"].strip("'"))
            place = self.nearest(key)
            mistakes.append((place, f"{self.at(place)}: {_dotted(key)}: {_explanation(detail, owner)}"))
        mistakes.sort(key=lambda mistake: mistake[0] if isinstance(mistake[0], int) else MAX_BYTES)
        return [text for _, text in mistakes]

    def _value(self, key: Key) -> Any:
        node = self.value
        for part in key:
            node = node[part]
        return node


def _entry(node: Any, part: str, key: Key, place: str) -> str | int:
    """`part` of an override as a key of `node`, found at `key`."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise RecipeError(
            f"{place}: {_dotted(key)} is {_shown(node)}, which has no keys; set the whole value, "
            f"as in --set '{_dotted(key)}={{...}}'"
        )
    if not part.isdecimal() or len(part) > len(str(MAX_VALUES)) or int(part) >= len(node):
        raise RecipeError(
            f"{place}: {_dotted(key)} has no entry {_shown(part)}; its "
            f"{count_of(len(node), 'entry', 'entries')} are numbered from 0"
        )
    return int(part)


# --- explaining ----------------------------------------------------------------------------------------------------


def _meant(detail: ErrorDetails) -> tuple[Key, type[Part]]:
    """The recipe's key that pydantic means, and the part of the schema that this key belongs to."""
    if not detail["loc"]:  # about the whole recipe, for instance if a key is not valid text
        return (), Recipe
    *way, last = detail["loc"]
    key: list[str | int] = []
    owner: type[Part] = Recipe
    for part in way:
        if part in FORMS:
            owner = FORMS[str(part)] or owner
            continue
        key.append(part)
        if isinstance(part, str) and part in owner.model_fields:
            owner = _part_in(owner.model_fields[part].annotation) or owner
    # Only an unknown key can have the name of a form.
    if last not in FORMS or detail["type"] == "extra_forbidden":
        key.append(last)
    return tuple(key), owner


def _part_in(annotation: Any) -> type[Part] | None:
    """The first schema class in a field's type; if there are several, the name of a form follows."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next((part for inner in get_args(annotation) if (part := _part_in(inner))), None)


_NEEDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text (in quotes, if it looks like something else)",
    "string_too_short": "some text",
    "tuple_type": "a list",
    "model_type": "a mapping, `key: value`",
    "model_attributes_type": "a name, or a mapping with the key `kind`",
    "dict_type": "a mapping, `key: value`",
    "too_short": "at least {min_length} entry",
    "too_long": "at most {max_length} entries",
    "greater_than": "a number above {gt:.10g}",
    "greater_than_equal": "at least {ge:.10g}",
    "less_than": "a number below {lt:.10g}",
    "less_than_equal": "at most {le:.10g}",
}


def _explanation(detail: ErrorDetails, owner: type[Part]) -> str:
    """What was found, and what is needed."""
    kind, context, found = detail["type"], detail.get("ctx", {}), f"found {_shown(detail['input'])}"
    name = next((part for part in reversed(detail["loc"]) if part in owner.model_fields), None)
    about = owner.model_fields[str(name)].description if name else None
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return f"missing; add it ({about})" if about else "missing; add it"
    if kind == "extra_forbidden":
        return _unknown_key(str(detail["loc"][-1]), owner)
    if kind in ("literal_error", "union_tag_invalid"):
        value = context.get("tag", detail["input"])
        options = re.findall(r"'(.*?)'", context.get("expected_tags") or context["expected"])
        return f"found {_shown(value)}{did_you_mean(str(value), options) or f'; needs {_one_of(options)}'}"
    if kind == "union_tag_not_found":
        return f"{found}; needs the key {context['discriminator'].strip(chr(39))}"
    if kind == "string_pattern_mismatch":
        return f"{found}; needs {about}"
    if kind in _NEEDS:
        return f"{found}; needs {_NEEDS[kind].format(**context)}" + (f" ({about})" if about else "")
    return f"{found}; {detail['msg']}"


def _unknown_key(key: str, owner: type[Part]) -> str:
    known = owner.model_fields
    return f"unknown key{did_you_mean(key, known) or '; known here are ' + ', '.join(known)}"


def _one_of(options: Sequence[str]) -> str:
    return " or ".join([", ".join(options[:-1]), options[-1]] if len(options) > 1 else options)


def _shown(value: object) -> str:
    """A value in short form, for a message."""
    match value:
        case None:
            text = "nothing"
        case bool():
            text = str(value).lower()
        case str():
            text = repr(value)
        case {}:
            text = f"a mapping with the keys {', '.join(map(str, value))}" if value else "an empty mapping"
        case list() | tuple():
            text = f"a list of {len(value)}" if value else "an empty list"
        case _:
            text = str(value)
    return _cut(_one_line(text), 80)


def _dotted(key: Key) -> str:
    return _cut(_one_line(".".join(map(str, key))), MAX_SHOWN)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _one_line(text: object) -> str:
    """Without line ends, and with control characters written out."""
    joined = " ".join(str(text).split())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in joined)
