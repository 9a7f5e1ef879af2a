"""What is generated of the reference: keys of recipes, options of commands, and the schema of results.json.

    python docs/reference.py

recipes.md and commands.md are read in the repository as well as on the site, so what is generated is committed, between
markers, and a test fails where it has drifted from the code:

    <!-- keys: Training -->    a table of the keys of these definitions of the schema
    <!-- forms: NpzData -->    what each of these definitions is; `removals`, `criteria_for_weights`, `..._nodes` and
                               `..._both` represent all of them
    <!-- commands -->          every command with its example, arguments and options
    <!-- tasks -->             what each task compares, minimises and measures, and `metrics` all that it can measure

results.schema.json is the JSON schema of compress/results.py, the whole file.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

from compress import results
from compress.cli import COMMANDS
from compress.ranking import KINDS
from compress.recipe.schema import Duration, json_schema
from compress.remove.removals import REMOVALS
from compress.select.criteria import CRITERIA
from compress.task_words import DEFAULT_METRICS, LOSSES, METRICS, TARGETS, WORDS

DOCS = Path(__file__).parent
FILES = (DOCS / "recipes.md", DOCS / "commands.md", DOCS / "tasks.md")
SCHEMA = DOCS / "results.schema.json"

MARKED = re.compile(
    r"(<!-- (?P<what>keys|forms|commands|tasks|metrics)(?:: (?P<names>[\w ]+))? -->\n).*?(<!-- /(?P=what) -->)",
    re.DOTALL,
)


def main() -> None:
    for path in FILES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA.write_text(results_schema(), encoding="utf-8")


def results_schema() -> str:
    return json.dumps(results.json_schema(), indent=2) + "\n"


def tasks() -> str:
    """A row for each task: its targets, its loss, and the metrics that it has by default."""
    rows = (
        (f"`{word}`", TARGETS[word], LOSSES[word], listed(DEFAULT_METRICS[word]) or "the loss alone") for word in WORDS
    )
    return table(("task", "targets", "loss", "measured beside it"), rows)


def metrics() -> str:
    """A row for each task: all its metrics, and which figures are better."""
    rows = (
        (
            f"`{word}`",
            listed(name for name in METRICS[word] if KINDS[name].larger),
            listed(name for name in METRICS[word] if not KINDS[name].larger) or "-",
        )
        for word in WORDS
    )
    return table(("task", "larger is better", "smaller is better"), rows)


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def filled(text: str) -> str:
    """The page with everything between its markers regenerated."""
    headings = headings_of_markers(text)

    def written(found: re.Match[str]) -> str:
        names = expanded(found["names"] or "")
        content = {
            "keys": lambda: keys(names, headings),
            "forms": lambda: forms(names),
            "commands": commands,
            "tasks": tasks,
            "metrics": metrics,
        }
        return f"{found[1]}\n{content[found['what']]()}\n\n{found[4]}"

    return MARKED.sub(written, text)


def headings_of_markers(text: str) -> dict[str, str]:
    """The heading above the marker that shows a definition: where a key that holds one links to."""
    found: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif marker := re.match(r"<!-- (?:keys|forms): ([\w ]+) -->", line):
            found |= dict.fromkeys(expanded(marker[1]), heading)
    return found


def expanded(names: str) -> list[str]:
    """The names of a marker, with those of every member of a family that it names."""
    return [one for name in names.split() for one in FAMILIES.get(name, [name])]


def _criteria(*, weights: bool, nodes: bool) -> list[str]:
    return [found.__name__ for found in CRITERIA if (found.ranks_weights(), found.ranks_nodes()) == (weights, nodes)]


FAMILIES = {
    "removals": [removal.__name__ for removal in REMOVALS],
    "criteria_for_both": _criteria(weights=True, nodes=True),
    "criteria_for_weights": _criteria(weights=True, nodes=False),
    "criteria_for_nodes": _criteria(weights=False, nodes=True),
}


# --- recipes ---------------------------------------------------------------------------------------------------------


def definitions() -> dict[str, dict[str, Any]]:
    """The parts of a recipe by their class's name, the recipe itself as `Recipe`."""
    schema = json_schema()
    return {"Recipe": schema, **schema["$defs"]}


def keys(names: list[str], headings: dict[str, str]) -> str:
    """key, value, default and meaning; of several definitions, with the forms that have the key."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        part = definitions()[name]
        for key, value in part["properties"].items():
            if key == tag(part):
                continue  # what tells the form
            default = "required" if key in part.get("required", ()) else shown_default(value.get("default"))
            row = (f"`{key}`", shown_value(value, headings), default, prose(value.get("description", "")))
            rows.setdefault(row, []).append(label(part))
    if len(names) == 1:
        return table(("key", "value", "default", "meaning"), rows)
    return table(
        ("key", "of", "value", "default", "meaning"), ((row[0], ", ".join(of), *row[1:]) for row, of in rows.items())
    )


def forms(names: list[str]) -> str:
    parts = (definitions()[name] for name in names)
    return table(("form", "meaning"), ((label(part), prose(part["description"])) for part in parts))


def tag(part: dict[str, Any]) -> str | None:
    """The key whose value says which form a mapping is, if its value and not its presence says so."""
    for key in ("kind", "name"):
        value = part["properties"].get(key, {})
        if "const" in value or "enum" in value:
            return key
    return None


def label(part: dict[str, Any]) -> str:
    """What the form is called by: the value of its tag, or the keys that it must have, or its first one."""
    key = tag(part)
    if key is None:
        return " with ".join(f"`{name}`" for name in part.get("required", list(part["properties"])[:1]))
    return ", ".join(f"`{value}`" for value in choices(part["properties"][key]))


def choices(value: dict[str, Any]) -> list[Any]:
    return [value["const"]] if "const" in value else value["enum"]


def shown_value(value: dict[str, Any], headings: dict[str, str]) -> str:
    """What a key may hold, in words."""
    options = [option for option in value.get("anyOf") or value.get("oneOf") or [] if option.get("type") != "null"]
    if len(options) == 1:
        return shown_value(options[0], headings)
    links = dict.fromkeys(headings[name] for name in references(value))
    if links:
        listed = "list of " if value.get("type") == "array" else ""
        words = "".join(f"{shown_value(option, headings)}, " for option in options if "enum" in option)
        named = ", ".join(f"[{heading}](#{anchor(heading)})" for heading in links)
        return listed + (words if any("$ref" in option for option in options) else "") + named
    if options:
        return " or ".join(shown_value(option, headings) for option in options)
    if "const" in value or "enum" in value:
        return ", ".join(f"`{choice}`" for choice in choices(value))
    match value["type"]:
        case "array" if "prefixItems" in value:
            return f"list of {len(value['prefixItems'])} whole numbers"
        case "array":
            return f"list of {shown_value(value['items'], headings).replace('number', 'numbers')}"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number":
            return {"integer": "whole number", "number": "number"}[value["type"]] + shown_range(value)
        case "object":
            return "mapping"
        case "string":
            return {Duration.PATTERN: "such as `3 epochs` or `100 steps`"}.get(value.get("pattern", ""), "text")
    raise ValueError(f"no words for {value}")


def shown_range(value: dict[str, Any]) -> str:
    bounds = (
        ("minimum", "from {}"),
        ("exclusiveMinimum", "above {}"),
        ("maximum", "at most {}"),
        ("exclusiveMaximum", "below {}"),
    )
    said = [words.format(value[bound]) for bound, words in bounds if bound in value]
    return f" {', '.join(said)}" if said else ""


def shown_default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        if value.keys() == {"amount", "unit"}:
            return f"`{value['amount']} {value['unit']}`"
        return f"`{{{', '.join(f'{key}: {json.dumps(inner)}' for key, inner in value.items())}}}`"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def references(value: Any) -> Iterable[str]:
    """The definitions that a value may be, or be a list of."""
    if isinstance(value, dict):
        if "$ref" in value and not value["$ref"].endswith("/JsonValue"):
            yield value["$ref"].rpartition("/")[2]
        for inner in ("anyOf", "oneOf", "items"):
            yield from references(value.get(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


# --- commands --------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command of the command line, in its order."""
    return "\n\n".join(section(command) for command in COMMANDS)


def section(command: Callable[..., None]) -> str:
    """Heading, what it is for, an example (the help ends in it), arguments and options."""
    said, _, example = (" ".join(part.split()) for part in (command.__doc__ or "").partition("Example: "))
    shown = table(("", "value", "default", "meaning"), options(command))
    return "\n\n".join((f"## {command.__name__}", said, f"```\n{example}\n```", shown))


def options(command: Callable[..., None]) -> Iterator[tuple[str, str, str, str]]:
    """name, value, default and meaning of every argument and option, as their annotations say."""
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, info = get_args(hints[name])
        required, default = parameter.default is inspect.Parameter.empty, ""
        if required:
            default = "required"
        elif parameter.default not in (None, False):
            default = f"`{parameter.default}`"
        flags = [info.default, *(info.param_decls or ())]  # typer keeps the first of them where defaults once stood
        called = flags if isinstance(info, OptionInfo) else [info.metavar or name.upper()]
        value = "" if kind is bool else shown_type(kind, info)
        other = f" Or the environment variable `{info.envvar}`." if info.envvar else ""
        yield ", ".join(f"`{part}`" for part in called), value, default, prose((info.help or "") + other)


def shown_type(kind: Any, info: Any) -> str:
    """What an option takes, and whether it may be given several times."""
    inner = [part for part in get_args(kind) if part is not NoneType] if get_origin(kind) is UnionType else [kind]
    if get_origin(inner[0]) is list:
        return f"{shown_type(get_args(inner[0])[0], info)}, repeatable"
    if isinstance(info, OptionInfo) and info.metavar:
        return f"`{info.metavar}`"
    if get_origin(inner[0]) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(inner[0]))
    words = {int: "whole number", float: "number", Path: "path", str: "text"}[inner[0]]
    return words if info.min is None else f"{words} from {info.min}"


# --- Markdown --------------------------------------------------------------------------------------------------------


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(titles)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows))


def prose(text: str) -> str:
    """A help text on one line, in which Markdown finds nothing to format: YAML in it becomes code."""
    text = re.sub(r"`[^`]*`|\{[^{}]*\}", lambda found: f"`{found[0].strip('`')}`", " ".join(text.split()))
    plain_and_code = text.split("`")
    plain_and_code[::2] = (re.sub(r"([*_])", r"\\\1", plain) for plain in plain_and_code[::2])
    return "`".join(plain_and_code).replace("|", "\\|")


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


if __name__ == "__main__":
    main()
