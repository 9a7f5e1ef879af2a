"""What the files of a run may say: nothing of the folders of the machine that they were made on.

A recipe may name files by their full paths, and warnings of libraries may, too. Readers of the results have no use for
the folders, and the user's name is often in them.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar, cast

from compress.recipe import schema

T = TypeVar("T")


def shareable_recipe(recipe: schema.Recipe) -> schema.Recipe:
    """The recipe with the last part of every full path; relative ones are left as they are."""
    return schema.Recipe.model_validate(_mapped(recipe.model_dump(mode="json", exclude_none=True), _last_part))


def without_folders(document: T, folders: Sequence[Path] = ()) -> T:
    """A JSON document whose texts name files by what follows a folder: of this list, or a usual one.

    The usual ones are the current folder, that for temporary files, the environment of Python and the user's home.
    """
    usual = (Path.cwd(), Path(tempfile.gettempdir()), Path(sys.prefix), Path.home())
    known = {str(form) for folder in (*folders, *usual) for form in (folder.absolute(), folder.resolve())}
    # The longest first, since one may be in another; a root would be part of every path.
    prefixes = sorted((f"{name}{os.sep}" for name in known if Path(name).parent != Path(name)), key=len, reverse=True)

    def shortened(text: str) -> str:
        for prefix in prefixes:
            text = text.replace(prefix, "")
        return text

    return cast(T, _mapped(document, shortened))


def _last_part(text: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() and path.name:
            return path.name
    return text


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {key: _mapped(inner, change) for key, inner in value.items()}
        case list() | tuple():
            return [_mapped(inner, change) for inner in value]
    return value
