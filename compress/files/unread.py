"""Placeholders for objects in a checkpoint that are not read: hyper-parameters, schedulers, whole networks.

torch's own reader (`weights_only=True`) refuses a file with a class that it does not know. Here each of these classes
is allowed under its name as a class that ignores whatever it is given. So no foreign code is imported, called or
looked up, the rest of the file is read by torch's rules, and what is skipped has a name.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from compress.files.pickled import Foreign


class Unread(list[Any]):
    """An object that was not read. It is a list, since torch lets only lists get items; it remains empty."""

    name: ClassVar[str]

    def __new__(cls, *_: object) -> "Unread":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, _: object) -> None: ...

    def append(self, _: object) -> None: ...

    def extend(self, _: object) -> None: ...

    def __call__(self, *_: object) -> "Unread":
        return type(self)()

    def __eq__(self, other: object) -> bool:
        """torch calls what equals a class that it knows; of a pickle, that may be a method or a partial function."""
        return other is self or other is type(self)

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be the key of a dict


class _Items:
    """Makes plain dicts in place of objects of a class of dicts, such as a defaultdict; their items are read."""

    def __new__(cls, *_: object) -> Counter[Any]:  # type: ignore[misc]
        return Counter()  # of the dicts that torch reads, the one that may also get attributes


@contextmanager
def skipping(foreign: Foreign) -> Iterator[None]:
    """Let `torch.load(..., weights_only=True)` pass over objects of the classes and functions in `foreign`."""
    stand_ins: list[Any] = [
        (_Items if kind == "dict" else type("Unread", (Unread,), {"name": name}), name)
        for name, kind in foreign.items()
    ]
    with torch.serialization.safe_globals(stand_ins):
        yield


def unread(value: object) -> list[str]:
    """The classes of the objects in `value`, at any depth, that were not read, or that are such classes themselves."""
    found: dict[str, None] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Unread) or (isinstance(each, type) and issubclass(each, Unread)):
            found[each.name] = None
        elif isinstance(each, dict):
            waiting += [*dict.keys(each), *dict.values(each)]
        elif isinstance(each, list | tuple | set):
            waiting += each
    return list(found)
