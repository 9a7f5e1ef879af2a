"""`Rebuild`: makes an object that a network returns, such as a dataclass of tensors, from the tensors in it."""

import dataclasses
from collections.abc import Callable, Mapping
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType
from typing import Any

from torch import Tensor

from compress.errors import UnsupportedModelError

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_UNKNOWABLE = (GeneratorType, CoroutineType, AsyncGeneratorType)


class Rebuild:
    """A function of the entries that hold tensors; the others are those of the object that the trace has seen.

    Entries are the items of a mapping or sequence, or the attributes of any other object.
    """

    def __init__(self, like: Any, fixed: Mapping[Any, Any]) -> None:
        self._class: Any = type(like)
        self._fixed = dict(fixed)
        self._order = list(_entries(like))
        self.__name__ = self.__qualname__ = f"rebuild_{type(like).__name__}"

    def __call__(self, found: Mapping[Any, Any]) -> Any:
        cls: Any = self._class
        entries = {key: (found if key in found else self._fixed)[key] for key in self._order}
        if hasattr(cls, "__dataclass_fields__"):
            return cls(**entries)
        if hasattr(cls, "_fields"):
            return cls(*entries.values())
        if issubclass(cls, list | tuple):
            return cls(entries.values())
        made = cls.__new__(cls)
        if issubclass(cls, dict):
            dict.update(made, entries)
        else:
            for key, value in entries.items():
                object.__setattr__(made, key, value)
        return made


def outline(value: Any, tensor: Callable[[Tensor], Any], rebuilt: Callable[[Rebuild, dict[Any, Any]], Any]) -> Any:
    """`value` with `tensor` of each tensor in it, and `rebuilt` of each object that is not a plain tuple, list or dict.

    Raises:
        UnsupportedModelError: it is a generator, whose tensors nobody has seen yet.
    """
    if isinstance(value, Tensor):
        return tensor(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, _UNKNOWABLE):
        raise UnsupportedModelError(
            f"it returns a {type(value).__name__}; let it return tensors in tuples, lists, dicts or dataclasses"
        )
    entries = _entries(value)
    holding = {key: outline(entry, tensor, rebuilt) for key, entry in entries.items() if _holds_tensors(entry, set())}
    if type(value) in (dict, list, tuple) and all(map(_is_simple, entries.values())):
        whole = {key: holding.get(key, entry) for key, entry in entries.items()}
        return whole if isinstance(value, dict) else type(value)(whole.values())
    return rebuilt(Rebuild(value, {key: entry for key, entry in entries.items() if key not in holding}), holding)


def _is_simple(value: Any) -> bool:
    """Whether a graph can hold it as an argument."""
    return isinstance(value, _PLAIN) or _holds_tensors(value, set())


def _entries(value: Any) -> dict[Any, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


def _holds_tensors(value: Any, seen: set[int]) -> bool:
    if isinstance(value, Tensor):
        return True
    if isinstance(value, (*_PLAIN, type, FunctionType)) or id(value) in seen:
        return False
    seen.add(id(value))
    return any(_holds_tensors(entry, seen) for entry in _entries(value).values())
