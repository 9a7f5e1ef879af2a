"""Sizes in integer attributes of a network's modules, such as a number of heads, follow the cut.

The code of many classes has its sizes in attributes: `x.view(n, -1, self.heads, self.head_size)`. Nothing says which
attributes these are, so they are tried. An attribute is a candidate if it equals a size that changes in its module, or
in one around it. A candidate is changed only if the network does not compute the same otherwise. The proof decides.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations, islice, product

import torch
from torch import Tensor, nn

from compress.graph.coupling import Coupling, Couplings
from compress.graph.layers import CONVOLUTIONS
from compress.graph.trace import tensors_of
from compress.inputs import Inputs
from compress.slimming.trials import Kept, Progress, Trials

_SIZES_OF_TORCH: dict[str, tuple[type[nn.Module], ...]] = {
    "unflattened_size": (nn.Unflatten,),
    "groups": CONVOLUTIONS,
    "num_groups": (nn.GroupNorm,),
    "num_channels": (nn.GroupNorm,),
}
"""The attributes of torch's own layers that an edit may change; `in_features` and others follow the weights."""

_MOST_TRIALS = 16
"""Trials without progress; most of them end in the first layer that does not run."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def integers_of(module: nn.Module, name: str) -> tuple[int, ...]:
    """The entries of the attribute `name` that an edit may change, -1 for any other; () if there are none.

    These are an integer, or those of a tuple or list. Attributes of `nn.Module`, private ones, and those of torch's
    own layers that are not sizes are never changed.
    """
    if type(module).__module__.startswith("torch."):
        if not isinstance(module, _SIZES_OF_TORCH.get(name, ())):
            return ()
    elif name.startswith("_") or hasattr(nn.Module, name):
        return ()
    value = inspect.getattr_static(module, name, None)  # not what a property computes
    several = value if type(value) in (tuple, list, torch.Size) else (value,)
    assert isinstance(several, tuple | list)
    entries = tuple(entry if type(entry) is int else -1 for entry in several)
    return entries if set(entries) - {-1} else ()


def set_integer(module: nn.Module, name: str, index: int, value: int) -> None:
    old = getattr(module, name)
    if isinstance(old, tuple | list):
        entries = [*old[:index], value, *old[index + 1 :]]
        setattr(module, name, entries if isinstance(old, list) else type(old)(entries))
    else:
        setattr(module, name, value)


@dataclass(frozen=True)
class Integer:
    """Entry `index` of the attribute `name` of the module `path` may become one of `after`, the likeliest first."""

    path: str
    name: str
    index: int
    before: int
    after: tuple[int, ...]


@dataclass(frozen=True)
class Tried:
    """How candidates are tried.

    left: the remaining nodes of each coupling. kept: the remaining positions along dimensions of tensors. given: the
    inputs of both networks. other: modules within which outputs may differ. exact: in float64.
    """

    known: Couplings
    left: Mapping[Coupling, Tensor]
    kept: Mapping[tuple[str, int], Tensor]
    given: Inputs
    other: Set[str]
    exact: bool


def following(model: nn.Module, small: nn.Module, tried: Tried) -> list[tuple[Integer, int]] | None:
    """The integers that must change, each with its new value, for `small` to compute what `model` does.

    Args:
        small: a copy of `model` with cut tensors and the integers of `model`, which it also has when this returns.

    Returns:
        As few as possible; None if no combination was found.
    """
    groups = _groups(model, _integers(model, tried))
    try:
        trials = Trials(model, small, tried.given, _positions(model, tried), tried.other, tried.exact)
    except Exception:
        if tried.exact:  # not every network has float64
            return None
        raise
    chosen = _search(trials, groups)
    return None if chosen is None else list(chosen.items())


def _positions(model: nn.Module, tried: Tried) -> Kept:
    """The remaining nodes of couplings, and the remaining positions of dimensions of tensors."""
    tensors, found = tensors_of(model), defaultdict[tuple[int, int], list[Tensor]](list)
    cuts = [(tensors[name].shape[dim], positions) for (name, dim), positions in tried.kept.items()]
    for size, positions in [*cuts, *((coupling.size, nodes) for coupling, nodes in tried.left.items())]:
        known = found[size, len(positions)]
        if not any(torch.equal(positions, other) for other in known):
            known.append(positions)
    return found


def _integers(model: nn.Module, tried: Tried) -> list[Integer]:
    """The candidates of a network.

    First those of the module whose code contains a changing size, then those of the modules around it and around
    tensors that shrink.
    """
    modules = dict(model.named_modules())
    found: dict[tuple[str, str, int], tuple[int, int, list[int]]] = {}
    changes = dict.fromkeys(sorted(_changes(modules, tried, tensors_of(model)), key=lambda change: change[0]))
    sizes: dict[str, list[tuple[str, int, int]]] = {}
    for distance, path, before, after in changes:
        if path not in sizes:
            sizes[path] = list(_sizes(modules[path]))
        for name, index, value in sizes[path]:
            if value == before:
                options = found.setdefault((path, name, index), (distance, before, []))[2]
                options.extend([after] if after not in options else [])
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    return [Integer(*place, before, tuple(after)) for place, (_, before, after) in ordered]


def _sizes(module: nn.Module) -> Iterator[tuple[str, int, int]]:
    """(name, index, value) of all integers that an edit may change."""
    for name in _names(module):
        for index, value in enumerate(integers_of(module, name)):
            if value > 1:
                yield name, index, value


def _names(module: nn.Module) -> list[str]:
    """Attributes of the object and of its class."""
    classes = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.") and kind is not object]
    return list(dict.fromkeys([*vars(module), *(name for kind in classes for name in vars(kind))]))


def _changes(
    modules: Mapping[str, nn.Module], tried: Tried, tensors: Mapping[str, Tensor]
) -> Iterator[tuple[int, str, int, int]]:
    """(distance, module, before, after) for every changing size and the modules that may have it as an integer."""
    layers = {node.name: str(node.meta["layer"]) for node in tried.known.trace.graph.nodes if "layer" in node.meta}
    left = {coupling: len(nodes) for coupling, nodes in tried.left.items()}
    for number, before, after in tried.known.resized(left, "number"):
        for distance, path in _around(modules, layers[number.name.rpartition(".")[0]]):
            yield distance, path, before, after
    for coupling, count in left.items():
        for member in coupling.members:
            for distance, path in _around(modules, member.tensor.rpartition(".")[0]):
                yield distance + 1, path, coupling.size, count
    for (tensor, dim), positions in tried.kept.items():
        for distance, path in _around(modules, tensor.rpartition(".")[0]):
            yield distance + 1, path, tensors[tensor].shape[dim], len(positions)


def _around(modules: Mapping[str, nn.Module], path: str) -> Iterator[tuple[int, str]]:
    """The module and all around it, with their distances; containers have no code and do not count."""
    distance = 0
    while True:
        yield distance, path
        if not path:
            return
        distance += not isinstance(modules[path], _CONTAINERS)
        path = path.rpartition(".")[0]


Group = list[Integer]


def _groups(model: nn.Module, integers: Iterable[Integer]) -> list[Group]:
    """The same attribute of modules of one class follows in all of them or in none."""
    groups: dict[object, Group] = defaultdict(list)
    for integer in integers:
        groups[type(model.get_submodule(integer.path)), integer.name, integer.index].append(integer)
    return list(groups.values())


def _search(trials: Trials, groups: Sequence[Group]) -> dict[Integer, int] | None:
    """Integers to change, found layer by layer in the order of the run: a change that makes a layer right is kept."""
    chosen: dict[Integer, int] = {}
    progress = _run(trials, chosen)
    while not progress.complete:
        free = [group for group in groups if not any(one in chosen for one in group)]
        for more in islice(_choices(free, progress), _MOST_TRIALS):
            further = _run(trials, {**chosen, **more})
            if further.reached > progress.reached:
                chosen, progress = _fewest(trials, {**chosen, **more}, further)
                break
        else:
            return None
    return chosen


def _fewest(trials: Trials, chosen: dict[Integer, int], progress: Progress) -> tuple[dict[Integer, int], Progress]:
    """Integers that need not change keep their value, since the code may use them for something else."""
    for place in dict.fromkeys((integer.name, integer.index) for integer in chosen):
        fewer = {integer: value for integer, value in chosen.items() if (integer.name, integer.index) != place}
        without = _run(trials, fewer)
        if without.reached >= progress.reached:
            chosen, progress = fewer, without
    return chosen, progress


def _run(trials: Trials, chosen: Mapping[Integer, int]) -> Progress:
    _set(trials.small, chosen)
    try:
        return trials.run()
    finally:
        _set(trials.small, {integer: integer.before for integer in chosen})


def _set(small: nn.Module, values: Mapping[Integer, int]) -> None:
    for integer, value in values.items():
        set_integer(small.get_submodule(integer.path), integer.name, integer.index, value)


def _choices(groups: Sequence[Group], progress: Progress) -> Iterator[dict[Integer, int]]:
    """First those of the module in which the network stopped, then those of all modules that had begun."""
    seen: list[Group] = []
    for path in reversed(progress.within):
        here = [group for group in groups if any(one.path == path for one in group) and group not in seen]
        seen += here
        if here:
            yield from _combinations(here)
            break
    near = [group for group in groups if any(one.path in progress.entered for one in group)]
    if near != seen:
        yield from _combinations(near)


def _combinations(groups: Sequence[Group]) -> Iterator[dict[Integer, int]]:
    """All groups at their likeliest values, then a few groups at any value, the likeliest first."""
    if len(groups) > 1:
        yield _chosen(groups, [0] * len(groups))
    for count in range(1, len(groups) + 1):
        for some in combinations(groups, count):
            for options in product(*(range(max(len(one.after) for one in group)) for group in some)):
                yield _chosen(some, options)


def _chosen(groups: Sequence[Group], options: Sequence[int]) -> dict[Integer, int]:
    return {
        integer: integer.after[min(option, len(integer.after) - 1)]
        for group, option in zip(groups, options, strict=True)
        for integer in group
    }
