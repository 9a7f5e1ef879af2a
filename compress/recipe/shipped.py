"""The recipes that come with the package: read as text, without the schema or a YAML parser."""

from importlib import resources
from importlib.resources.abc import Traversable

from compress.errors import RecipeError
from compress.wording import did_you_mean


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
        shipped_are = f"; shipped are {', '.join(sorted(files))}"
        raise RecipeError(f"{name}: no shipped recipe of that name{did_you_mean(name, files) or shipped_are}")
    return files[name].read_text(encoding="utf-8")


def shipped_files() -> dict[str, Traversable]:
    """Every shipped recipe's file, by name."""
    folder = resources.files("compress") / "recipes"
    return {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}
