"""The recipes that come with the package, as they are written: read as text, without the schema and a YAML reader."""

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
    """A shipped recipe as it is written, comments and all; raises RecipeError where none has that name."""
    files = shipped_files()
    if name not in files:
        raise RecipeError(f"{name}: no shipped recipe of that name{suggestion(name, files)}")
    return files[name].read_text(encoding="utf-8")


def shipped_files() -> dict[str, Traversable]:
    """Every shipped recipe's file, by name."""
    folder = resources.files("compress") / "recipes"
    return {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}


def suggestion(name: str, files: Iterable[str]) -> str:
    """How a message that there is no recipe `name` ends."""
    return did_you_mean(name, files) or f"; shipped are {', '.join(sorted(files))}"


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """How a message that `word` is unknown ends: with the option that is spelled most like it, if one is."""
    close = difflib.get_close_matches(word, list(options), n=1)
    return f"; did you mean {close[0]}?" if close else ""
