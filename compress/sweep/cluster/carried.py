"""What a call needs beside itself on a machine that does not see the sweep's files, and the same call with them there.

Data sets, trained networks and the user's own modules are carried. Files that the user's code opens by itself are not.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from compress.files import places
from compress.recipe import schema
from compress.sweep.cluster.bundles import Bundle
from compress.sweep.code import sources
from compress.sweep.trained import Trained

FILES = (
    *("npz", "npz_test", "csv", "csv_test", "parquet", "parquet_test", "text", "text_test"),
    *("validation", "tokenizer"),
)
"""Keys of a recipe's data whose text may be the path of a file."""

NAMED = {
    "mnist": ("MNIST/raw",),
    "fashion_mnist": ("FashionMNIST/raw",),
    "cifar10": ("cifar10", "cifar-10-batches-py"),
}
"""Folders of named data sets below the data folder; others come with packages."""


@dataclass(frozen=True)
class Place:
    """A path as a call names it, and its files.

    path: the same, absolute where the sweep runs. within: its place in the bundle; empty if it is the bundle's folder.
    key: "#ema" of "model.pt#ema".
    """

    text: str
    path: str
    bundle: Bundle
    within: str = ""
    key: str = ""

    def moved_to(self, folder: Path | None) -> str:
        """The path where the bundle is in `folder`; None: where the sweep has it."""
        return self.path if folder is None else str(folder / self.within) + self.key


@dataclass(frozen=True)
class Carried:
    """Everything that a call reads, and where it writes.

    code: the user's modules. roots: the folders from which they are imported where the sweep runs.
    written: the folder to which the call writes files that later calls read, as the call names it.
    """

    places: tuple[Place, ...] = ()
    code: Bundle | None = None
    roots: tuple[str, ...] = ()
    written: str | None = None

    def __add__(self, other: "Carried") -> "Carried":
        return Carried(
            (*self.places, *other.places),
            self.code or other.code,
            (*self.roots, *other.roots),
            self.written or other.written,
        )

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        return (*(place.bundle for place in self.places), *(() if self.code is None else (self.code,)))


NOTHING = Carried()


def of_recipe(recipe: schema.Recipe, data_root: Path) -> Carried:
    """The data and the code that a recipe names."""
    modules = sources(recipe)
    return Carried(
        of_data(recipe.data, data_root).places,
        Bundle.of({name: path for name, path, _ in modules}) if modules else None,
        tuple(dict.fromkeys(str(root) for _, _, root in modules)),
    )


def of_data(data: schema.Data, data_root: Path) -> Carried:
    """The files of a data set."""
    return Carried(tuple(_of_data(data, data_root)))


def _of_data(data: schema.Data, data_root: Path) -> Iterator[Place]:
    if isinstance(data, schema.NamedData):
        root = data_root.expanduser()
        found = {name: path for part in NAMED.get(data.name, ()) for name, path in _below(root, part)}
        if found:
            yield _place(str(data_root), root, found)
    elif isinstance(data, schema.FolderData):
        yield _place(data.folder, Path(data.folder), dict(_below(Path(data.folder))))
    for key in FILES:
        text = getattr(data, key, None)
        if isinstance(text, str) and (path := Path(text)).is_file():
            yield of_file(path)


def of_file(path: Path) -> Place:
    """One file."""
    return Place(str(path), os.path.abspath(path), Bundle.of({path.name: path}), path.name)


def _place(text: str, path: Path, files: Mapping[str, Path]) -> Place:
    return Place(text, os.path.abspath(path), Bundle.of(files))


def _below(root: Path, part: str = "") -> Iterator[tuple[str, Path]]:
    for folder, _, names in os.walk(root / part):
        for name in names:
            path = Path(folder) / name
            yield path.relative_to(root).as_posix(), path


def of_network(trained: Trained) -> Carried:
    """The files of a trained network."""
    path, key = places.without_key(trained.path)
    files = places.files_of(places.place(trained.path))
    bundle = Bundle.of({file.name: file for file in files})
    own = "" if path.is_dir() else path.name, "" if key is None else f"#{key}"
    return Carried((Place(str(trained.path), os.path.abspath(trained.path), bundle, *own),))


def networks_in(value: object) -> Iterator[Trained]:
    """Every trained network that a cell names."""
    if isinstance(value, Trained):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from networks_in(getattr(value, field.name))


def moved(value: Any, at: Mapping[str, str]) -> Any:
    """A call, or a part of one, with other paths; `at` has the new text of each path by its text in the call."""
    if isinstance(value, Path):
        return Path(at[str(value)]) if str(value) in at else value
    if isinstance(value, schema.Recipe):
        return value.model_copy(update={"data": _data_at(value.data, at)})
    if isinstance(value, partial):
        arguments = {name: moved(part, at) for name, part in value.keywords.items()}
        return partial(moved(value.func, at), *(moved(part, at) for part in value.args), **arguments)
    if type(value) is tuple:
        return tuple(moved(part, at) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {field.name: moved(getattr(value, field.name), at) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **own)
    return value


def _data_at(data: schema.Data, at: Mapping[str, str]) -> schema.Data:
    texts = ((key, getattr(data, key, None)) for key in (*FILES, "folder"))
    return data.model_copy(update={key: at[text] for key, text in texts if isinstance(text, str) and text in at})
