"""The recipes that come with the package: read as text, without the schema or a YAML parser."""

import difflib
from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable

from compress.errors import RecipeError


def shipped() -> list[tuple[str, str]]:
    """(name, first comment line) of every recipe that comes with the package, by name."""
    return [
        (name, file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip())
        for name, file in sorted(shipped_files().items())
    ]


def shipped_text(name: str) -> str:
    """The text of a shipped recipe, with its comments; raises RecipeError if none has that name."""
    files = shipped_files()
    if name not in files:
        raise RecipeError(f"{name}: no shipped recipe of that name{suggestion(name, files)}")
    return files[name].read_text(encoding="utf-8")


def shipped_files() -> dict[str, Traversable]:
    """Every shipped recipe's file, by name."""
    folder = resources.files("compress") / "recipes"
    return {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}


def suggestion(name: str, files: Iterable[str]) -> str:
    """The end of the message that recipe `name` does not exist."""
    return did_you_mean(name, files) or f"; shipped are {', '.join(sorted(files))}"


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """The end of the message that `word` is unknown: the option with the closest spelling, if there is one."""
    close = difflib.get_close_matches(word, list(options), n=1)
    return f"; did you mean {close[0]}?" if close else ""
