"""The user's code that a cell's result depends on: the modules of a recipe's factories, and their imports.

Sources are read and never run. Modules imported in other ways than by `import`, and files that the code reads, are
not found.
"""

import ast
import hashlib
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from compress.recipe.factories import called
from compress.recipe.schema import Recipe

INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def code_of(recipe: Recipe) -> dict[str, str]:
    """By module, the sha256 of its source or, for an installed package, its version; empty without factories."""
    return {name: found if isinstance(found, str) else found.sha256 for name, found in _modules(recipe).items()}


def sources(recipe: Recipe) -> list[tuple[str, Path, Path]]:
    """The files of the user's modules: the name below its root, such as "pkg/part.py", the path, and the root."""
    return [
        (found.path.relative_to(found.root).as_posix(), found.path, found.root)
        for found in _modules(recipe).values()
        if isinstance(found, _Source)
    ]


@dataclass(frozen=True)
class _Source:
    """A module's file, the folder from which it is imported, and the hash of its content."""

    path: Path
    root: Path
    sha256: str


def _modules(recipe: Recipe) -> dict[str, "str | _Source"]:
    """Every module that the factories need: the file of a user's one, or the version of an installed package."""
    found: dict[str, str | _Source] = {}
    waiting = [spec.partition(":")[0] for spec in called(recipe)]
    while waiting:
        for name in _with_parents(waiting.pop()):
            spec = None if name in found or _known(name) else _spec(name)
            if spec is None:
                continue
            if (installed := _version(name, spec)) is not None:
                found[name.partition(".")[0]] = installed
            elif spec.origin is not None and spec.has_location:
                path, package = Path(os.path.abspath(spec.origin)), spec.submodule_search_locations is not None
                content = path.read_bytes()
                root = path.parents[name.count(".") + package]
                found[name] = _Source(path, root, hashlib.sha256(content).hexdigest())
                waiting += _imports(content, name, package=package)
    return found


def _with_parents(name: str) -> Iterator[str]:
    """Importing "a.b" runs "a" as well."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _known(name: str) -> bool:
    """Whether a module belongs to Python or to this package, whose versions are recorded separately."""
    return name.partition(".")[0] in (*sys.stdlib_module_names, "compress")


def _spec(name: str) -> ModuleSpec | None:
    """The module's spec, found as `models.function` finds it, without importing anything."""
    here = os.getcwd()
    path = sys.path if here in sys.path else [here, *sys.path]
    found = None
    for part in _with_parents(name):
        found = PathFinder.find_spec(part, path)
        if found is None:
            break
        path = list(found.submodule_search_locations or ())
    try:
        return found or find_spec(name.partition(".")[0])  # for instance of an editable installation
    except ValueError:  # a module created in this process
        return None


def _version(name: str, spec: ModuleSpec) -> str | None:
    """The version of an installed module's distribution; None for the user's own modules."""
    place = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), os.getcwd())).resolve()
    if not any(place.is_relative_to(folder) for folder in INSTALLED):
        return None
    return "+".join(f"{one} {version(one)}" for one in sorted(_distributions().get(name.partition(".")[0], ()))) or None


@cache
def _distributions() -> dict[str, list[str]]:
    return {module: sorted(set(names)) for module, names in packages_distributions().items()}


def _imports(source: bytes, name: str, *, package: bool) -> Iterator[str]:
    """Possible names of the modules that a source imports, at its top or anywhere in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the user's escape sequences, which the import reports
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # not Python, for instance an extension module
        return
    inside = name.split(".") if package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" if origin else alias.name for alias in node.names)
