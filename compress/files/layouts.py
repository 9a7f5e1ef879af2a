"""Where a checkpoint keeps the weights, and which of their names fit a network.

Training code writes {"state_dict": ..., "epoch": ...}, and wrappers write their own part into every name: "module.",
"_orig_mod.", Lightning's "model.". A set of weights fits where its names, without such parts and without one common
prefix, are exactly the network's, with the same shapes. Nothing is guessed: if two sets fit, both are named.
"""

import logging
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, TypeGuard

from torch import Tensor

from compress.errors import CheckpointError

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that torch's wrappers add: DataParallel and AveragedModel, compile, FSDP, activation checkpointing."""

_COUNTER = "n_averaged"
"""The tensor that AveragedModel keeps beside its network."""

_log = logging.getLogger(__name__)

Weights = Mapping[str, Tensor]


def sets_of_weights(content: dict[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """The sets of weights in what a file holds, by their key in it; "" is the file itself.

    Only the class's own methods are called, not those that an object's attributes could hide.
    """
    if _is_weights(content):
        return {"": dict(dict.items(content))}
    found = [(key, value) for key, value in dict.items(content) if isinstance(key, str) and _is_weights(value)]
    first = {id(value): key for key, value in reversed(found)}  # one set may have two keys
    return {key: dict(dict.items(value)) for key, value in found if first[id(value)] == key}


def fitting(sets: Mapping[str, Weights], wanted: Weights, source: str) -> Weights:
    """The only one of `sets` that fits a network with the state_dict `wanted`, under the network's own names.

    Where none fits, the one that comes closest is returned, for the error of what differs.

    Raises:
        CheckpointError: several fit.
    """
    renamed = {key: names for key, found in sets.items() if (names := own_names(found, wanted)) is not None}
    alike = [
        key
        for key, names in renamed.items()
        if all(sets[key][old].shape == wanted[new].shape for old, new in names.items())
    ]
    if len(alike) > 1:
        raise CheckpointError(
            f"{source} holds {len(alike)} sets of weights that fit the network, {_listed(alike)}: save the one that "
            f'you want, as with `torch.save({_loading(source, alike[-1])}, "model.pt")`'
        )
    closest = min(sets, key=lambda key: len(wanted.keys() ^ sets[key].keys()))
    chosen = next(iter(alike or renamed), closest)
    names = renamed.get(chosen, {name: name for name in sets[chosen]})
    if alike:
        _note(chosen, names, source)
    return {new: sets[chosen][old] for old, new in names.items()}


def own_names(found: Collection[str], wanted: Collection[str]) -> dict[str, str] | None:
    """The network's name for each name in the file; None where they are not exactly the network's."""
    names = [name for name in found if name != _COUNTER or name in wanted]
    if len(names) != len(wanted):
        return None
    for plain in (str, _unwrapped):
        theirs, ours = {plain(name): name for name in names}, {plain(name): name for name in wanted}
        if len(theirs) == len(ours) == len(wanted):  # else two names have become one
            for prefix in _prefixes(theirs, ours):
                return {theirs[prefix + name]: own for name, own in ours.items()}
    return None


def way_out(sets: Mapping[str, Weights], wanted: Collection[str], source: str) -> str | None:
    """How to save the weights of a network alone, where a set holds them among others; None where none does."""
    for key, found in sets.items():
        prefixes = [prefix for prefix in _prefixes(found, wanted) if prefix]
        if prefixes:
            text = repr(prefixes[0])
            taken = f"{{k.removeprefix({text}): v for k, v in weights.items() if k.startswith({text})}}"
            return (
                f"Its names under {_listed(prefixes)} are the network's, and others are beside them: save those alone, "
                f'as with `weights = {_loading(source, key)}; torch.save({taken}, "model.pt")`'
            )
    return None


def only(sets: Mapping[str, dict[str, Tensor]], source: str) -> dict[str, Tensor]:
    """The only set, where the network is not known.

    Raises:
        CheckpointError: there are several.
    """
    if len(sets) > 1:
        raise CheckpointError(
            f"{source} holds {len(sets)} sets of weights, {_listed(sets)}: save one of them, as with "
            f'`torch.save({_loading(source, next(iter(sets)))}, "model.pt")`'
        )
    return next(iter(sets.values()))


def _is_weights(content: object) -> TypeGuard[dict[str, Tensor]]:
    if not isinstance(content, dict) or not dict.__len__(content):
        return False
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in dict.items(content))


def _prefixes(found: Collection[str], wanted: Collection[str]) -> list[str]:
    """Each prefix, "" included, under which `found` has all of the names in `wanted`."""
    first = next(iter(wanted), None)
    if first is None:
        return []
    ends = [name.removesuffix(first) for name in found if name == first or name.endswith(f".{first}")]
    return [prefix for prefix in ends if all(prefix + name in found for name in wanted)]


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _note(key: str, names: Mapping[str, str], source: str) -> None:
    """Say what was left out on the way, if anything was."""
    old, new = next((pair for pair in names.items() if pair[0] != pair[1]), ("", ""))
    under = f"the weights under {key!r}" if key else "the weights"
    if old != new:
        _log.info("%s: %s are loaded with the network's names (%.100r as %.100r)", source, under, old, new)
    elif key:
        _log.info("%s: %s are loaded", source, under)


def _loading(source: str, key: str) -> str:
    if source.endswith(".safetensors"):
        return f"safetensors.torch.load_file({source!r})"
    return f"torch.load({source!r}, weights_only=True)" + (f"[{key!r}]" if key else "")


def _listed(names: Collection[str], most: int = 6) -> str:
    """The names in words; a file from elsewhere may have any number of them, of any length."""
    shown = [f"{name!r:.100}" for name in islice(names, most)]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last
