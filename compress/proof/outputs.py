"""`outputs_of`: everything that a network returns, flattened to tensors and plain values, each with a path.

Containers of any class are flattened: mappings, sequences, dataclasses, and objects by their attributes. Anything else
is refused by name, so that no comparison leaves anything out.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import InputError

Step = str | int
Path = tuple[Step, ...]

_PLAIN = (
    *(bool, int, str, bytes, complex, range, slice, type(None), type(...), Enum, type),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype),
)


@dataclass(frozen=True)
class Outputs:
    """tensors: dense ones, by path; a float is one too. plain: what is compared by `==`.

    values: the paths of those tensors that are floats or arrays of numpy in the output.
    """

    tensors: Mapping[Path, Tensor]
    plain: Mapping[Path, object]
    values: frozenset[Path] = frozenset()

    @property
    def in_files(self) -> "Outputs":
        """The outputs of a file, which has only tensors."""
        return Outputs({path: one for path, one in self.tensors.items() if path not in self.values}, self.plain)


def outputs_of(returned: object) -> Outputs:
    """Flatten what a network returns.

    Keys of a mapping and attributes of an object are equivalent, and so are all sequences: a graph returns a dict where
    the network returns an object of a class.

    Raises:
        InputError: it contains no tensor, or something that cannot be compared; names the class and the path.
    """
    tensors: dict[Path, Tensor] = {}
    plain: dict[Path, object] = {}
    values: set[Path] = set()
    for path, leaf in _leaves(returned, (), ()):
        if isinstance(leaf, Tensor):
            tensors[path] = leaf.detach()
        elif _is_number(leaf):
            tensors[path] = _numbers(leaf, path)
            values.add(path)
        else:
            plain[path] = leaf
    if not tensors:
        raise InputError("The network returns no tensor, so that there is nothing to compare.")
    return Outputs(tensors, plain, frozenset(values))


def named(path: Path) -> str:
    return "the output" + "".join(f"[{step!r}]" for step in path)


def _leaves(value: Any, path: Path, within: tuple[int, ...]) -> Iterator[tuple[Path, object]]:
    """within: identities of the containers around `value`, since one of them may contain itself."""
    if id(value) in within:
        yield path, ("holds itself", len(within) - within.index(id(value)))
        return
    if isinstance(value, Tensor):
        yield from _of_tensor(value, path)
    elif _is_number(value) or isinstance(value, _PLAIN):
        yield path, value
    elif isinstance(value, set | frozenset):
        if not all(isinstance(item, _PLAIN) for item in value):
            raise InputError(f"{named(path)} is a {type(value).__name__} of tensors, which have no order in it.")
        yield path, value
    else:
        parts = dict(_parts(value, path))
        yield path, len(parts)
        for step, part in parts.items():
            yield from _leaves(part, (*path, step), (*within, id(value)))


def _parts(value: Any, path: Path) -> Iterator[tuple[Step, Any]]:
    """The parts of a container or an object."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping) or (hasattr(value, "keys") and hasattr(value, "__getitem__")):
        items = [(key, value[key]) for key in list(value.keys())]
    elif isinstance(value, list | tuple | deque) or _sequence(value):
        items = list(enumerate(value))
    elif isinstance(value, nn.Module) or callable(value) or not (hasattr(value, "__dict__") or _slots(value)):
        raise InputError(f"{named(path)} is a {type(value).__name__}, which cannot be compared; return tensors.")
    for key, part in items:
        yield key if isinstance(key, str | int) else repr(key), part
    seen = {id(part) for _, part in items}
    for name in [*getattr(value, "__dict__", ()), *_slots(value)]:
        part = getattr(value, name, None)
        if id(part) not in seen and not _of_the_class(value, part):
            yield name, part


def _sequence(value: Any) -> bool:
    """The items of a class that is not a list and does not keep its items in attributes."""
    own = hasattr(value, "__dict__") or _slots(value)
    return not own and hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _slots(value: Any) -> list[str]:
    found: list[str] = []
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        found += [slots] if isinstance(slots, str) else slots
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def _of_the_class(value: Any, part: Any) -> bool:
    """Whether an attribute is the internal storage of a mapping or sequence, whose items have been listed."""
    return isinstance(value, Mapping | list | tuple | deque) and isinstance(part, dict | list | tuple)


def _of_tensor(tensor: Tensor, path: Path) -> Iterator[tuple[Path, Tensor]]:
    """A dense tensor, or the parts of another."""
    if tensor.is_meta:
        raise InputError(f"{named(path)} is a tensor without data (on the device meta).")
    if tensor.is_nested:
        for number, part in enumerate(tensor.unbind()):
            yield (*path, number), part
    elif tensor.layout is torch.sparse_coo:
        whole = tensor.coalesce()
        yield (*path, "indices"), whole.indices()
        yield (*path, "values"), whole.values()
        yield (*path, "size"), torch.tensor(tensor.shape)
    elif tensor.layout is not torch.strided:
        yield path, tensor.to_dense()
    else:
        yield path, tensor.dequantize() if tensor.is_quantized else tensor


def _is_number(value: object) -> bool:
    return isinstance(value, np.ndarray | np.generic | float) and not isinstance(value, str | bytes)


def _numbers(value: object, path: Path) -> Tensor:
    try:
        return torch.as_tensor(np.asarray(value))
    except TypeError as error:
        raise InputError(f"{named(path)} is an array that torch cannot read: {error}") from error
