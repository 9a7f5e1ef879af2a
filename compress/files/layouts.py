"""Where a checkpoint keeps weights: under keys such as "state_dict", at any of a few levels, beside other things.

A set of weights is what one dict in the file has of tensors by name. Its key is the path to it, such as
"checkpoint/model"; that of the file itself is "". An optimizer's state is not one.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from torch import Tensor

from compress.errors import CheckpointError
from compress.files.unread import unread
from compress.wording import did_you_mean

LEVELS = 4
"""How deep in dicts weights are looked for."""

KNOWN = ("", "model", "state_dict", "model_state_dict", "net", "network", "module", "generator", "student")
"""Keys of the weights themselves, in the order in which they are taken where several sets fit."""

AVERAGES = {"ema", "swa", "avg", "average", "averaged", "shadow", "teacher", "averager"}
"""Words in the key of a copy, whose weights are taken last."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    sets: tensors by name, by the key of the set.
    others: the keys of what is not a set, and the classes in it that were not read, such as argparse.Namespace.
    """

    sets: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)


def contents(content: dict[Any, Any]) -> Contents:
    """The sets of weights in what a file holds, outer ones first, and the rest.

    Only the class's own methods are called, not those that an object's attributes could hide.

    Raises:
        CheckpointError: two sets have the same key, as where a key has a slash in it.
    """
    found = Contents()
    _collect(content, "", 0, found, {id(content)})
    return found


def _collect(content: dict[Any, Any], key: str, level: int, found: Contents, seen: set[int]) -> bool:
    """Add the sets in `content` and below it; whether there are any."""
    items = dict(dict.items(content))
    if tensors := {name: value for name, value in items.items() if isinstance(name, str) and isinstance(value, Tensor)}:
        if key in found.sets:
            raise CheckpointError(f"the checkpoint holds two sets of weights with the key {key!r:.100}")
        found.sets[key] = tensors
    others: dict[str, list[str]] = {}
    below = False
    for name, value in items.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            continue
        inner = f"{key}/{name}" if key else str(name)
        if isinstance(name, str) and _may_hold_weights(value, level):
            if id(value) in seen:  # one set may have two keys
                continue
            seen.add(id(value))
            if _collect(value, inner, level + 1, found, seen):
                below = True
                continue
        others[inner] = unread(value)
    if tensors or below:
        found.others.update(others)
    return bool(tensors) or below


def _may_hold_weights(value: object, level: int) -> bool:
    return isinstance(value, dict) and level < LEVELS and not dict.__contains__(value, "param_groups")


def under(found: Contents, key: str, source: str) -> Contents:
    """The part of a file that a key names: a set, sets below it, or the names under a prefix; the rest is beside it.

    Raises:
        CheckpointError: there is no such part.
    """
    sets = {own: tensors for own, tensors in found.sets.items() if own == key or own.startswith(f"{key}/")}
    for own, tensors in found.sets.items():
        if not sets and (not own or key.startswith(f"{own}/")):
            prefix = key.removeprefix(f"{own}/").replace("/", ".") + "."
            if part := {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}:
                sets[own] = part
    if not sets:
        there = quoted([own for own in found.sets if own]) if any(found.sets) else "no keys"
        near = did_you_mean(key[:100], [own for own in found.sets if own])
        raise CheckpointError(f'{source} has no weights under "{key:.100}"; it has {there}{near}')
    rest = {own: list[str]() for own in found.sets if own and own not in sets}
    return Contents(sets, rest | found.others)


def rank(address: str) -> tuple[bool, int]:
    """The order in which sets are taken where several fit: averages last, known keys first, then as in the file."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", address).lower())
    average = not AVERAGES.isdisjoint(words)
    places = [KNOWN.index(part) for part in address.split("/") if part in KNOWN]
    return average, max(places, default=len(KNOWN))


def only(sets: Mapping[str, dict[str, Tensor]]) -> str:
    """The key of the set that is most probably the weights, where the network is not known: the largest of the first.

    Sets of one tensor beside a larger one are measurements, such as the best accuracy.
    """
    most = max(map(len, sets.values()))
    return min((key for key in sets if len(sets[key]) > 1 or most == 1), key=lambda key: (rank(key), -len(sets[key])))


def quoted(names: Collection[str], most: int = 6) -> str:
    """The names in words; a file from elsewhere may have any number of them, of any length."""
    shown = [f'"{name:.100}"' for name in islice(names, most)]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last
