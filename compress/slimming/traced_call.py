"""The call that a slim graph was traced for, as entries (name, index, size) for its shape edits, and back.

A name contains the place of an argument, its dtype, and the name of its size if that varies: "ids:int64:length" is one
dimension of the keyword argument `ids`, "0.1:float32" one of the second entry of the first argument. "use_cache=false"
is a plain value. Of a single tensor, the name is its dtype.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from compress.dynamic import BATCH_NAME
from compress.errors import CheckpointError
from compress.inputs import Inputs
from compress.wording import count_of

_SCALAR = "scalar"
_ROWS = 2
"""Of the batch; the graph holds for any."""

_MOST_ENTRIES, _MOST_SIZES, _MOST_ARGUMENTS, _DEEPEST = 2**28, 16, 100, 10
"""Of the inputs that a network is traced for."""

Entry = tuple[str, int, int]


def entries_of(given: Inputs, varying: Sequence[Mapping[int, str]]) -> Iterator[Entry]:
    """The entries from which `call_of` rebuilds the call.

    Args:
        varying: for each tensor, the names of its dimensions that vary besides the batch.
    """
    single = len(given.args) == 1 and isinstance(given.args[0], Tensor) and not given.kwargs
    if single and not varying[0] and given.batch_dim == 0:
        for index, size in enumerate((_ROWS, *given.args[0].shape[1:])):
            yield _dtype(given.args[0]), index, size
        return
    names = iter(varying)
    arguments = {**{str(number): value for number, value in enumerate(given.args)}, **given.kwargs}
    for path, leaf in tree_flatten_with_path(arguments)[0]:
        where = ".".join(keystr((key,)).strip("[].'\"") for key in path)
        if not isinstance(leaf, Tensor):
            if isinstance(leaf, bool | int | float | str | None):
                yield f"{where}={json.dumps(leaf)}", 0, 1
            continue
        words, batch = next(names), given.batch_dim_of(leaf)
        if leaf.ndim == 0:
            yield f"{where}:{_dtype(leaf)}:{_SCALAR}", 0, 1
        for index, size in enumerate(leaf.shape):
            word = BATCH_NAME if index == batch else words.get(index)
            yield ":".join([where, _dtype(leaf), *([word] if word else [])]), index, _ROWS if index == batch else size


def call_of(entries: Iterable[Entry]) -> tuple[Inputs, list[dict[int, str]]]:
    """The call, with zeros in its tensors that take no memory, and the names of the dimensions that vary.

    Raises:
        CheckpointError: the entries are damaged.
    """
    arguments: dict[str, Any] = {}
    shapes: dict[str, tuple[torch.dtype, list[int], dict[int, str]]] = {}
    for name, index, size in entries:
        if "=" in name:
            where, _, text = name.partition("=")
            arguments[where] = _plain(text)
            continue
        where, dtype, word = _parts(name)
        known, sizes, words = shapes.setdefault(where, (dtype, [], {}))
        if known != dtype or (index != len(sizes) and word != _SCALAR) or len(sizes) >= _MOST_SIZES or size < 1:
            raise _damaged(name)
        if word != _SCALAR:
            sizes.append(size)
            words |= {index: word} if word else {}
        if prod(sizes) > _MOST_ENTRIES:
            raise CheckpointError(f"The shape edits are for inputs of the sizes {sizes}, which no network takes.")
        arguments[where] = torch.zeros((), dtype=dtype).expand(sizes)
    if len(arguments) > _MOST_ARGUMENTS or not shapes:
        raise _damaged(f"{count_of(len(arguments), 'argument')}")
    nested = _nested(arguments)
    args = [nested[key] for key in nested if key.isdigit()]
    batch = [next((dim for dim, word in words.items() if word == BATCH_NAME), 0) for _, _, words in shapes.values()]
    call = Inputs(tuple(args), {key: value for key, value in nested.items() if not key.isdigit()}, batch[0])
    varying = [{dim: word for dim, word in words.items() if word != BATCH_NAME} for _, _, words in shapes.values()]
    return call, varying


def _parts(name: str) -> tuple[str, torch.dtype, str | None]:
    parts = name.split(":")
    where, dtype, word = (*parts, "", "")[:3] if len(parts) > 1 else ("0", name, "")
    found = getattr(torch, dtype, None)
    if len(parts) > 3 or not isinstance(found, torch.dtype) or not where or where.count(".") > _DEEPEST:
        raise _damaged(name)
    return where, found, word or None


def _plain(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(text) from error
    if not isinstance(value, bool | int | float | str | None):
        raise _damaged(text)
    return value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by their paths, as nested dicts and lists; keys that are numbers are places in a list."""
    tree: dict[str, Any] = {}
    for where, value in flat.items():
        *outer, last = where.split(".")
        inside = tree
        for key in outer:
            inside = inside.setdefault(key, {})
            if not isinstance(inside, dict):
                raise _damaged(where)
        if last in inside:
            raise _damaged(where)
        inside[last] = value
    return {key: _listed(value) for key, value in tree.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    entries = {key: _listed(entry) for key, entry in value.items()}
    return list(entries.values()) if all(key.isdigit() for key in entries) else entries


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(
        f"The shape edits for a traced network do not say what input it takes ({what[:80]!r}); the file is damaged."
    )
