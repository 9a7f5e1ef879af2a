"""Sizes that stand in integer attributes of a network's modules, such as a number of heads, follow the cut.

The code of many classes has its sizes in attributes: `x.view(n, -1, self.heads, self.head_size)`. Which attributes
those are, nothing says: they are tried. An attribute is a candidate if it equals a size that changes in its module, or
in one around it. A candidate is changed only if the network does not compute the same otherwise; the proof has the
last word.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations, islice, product

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.evaluation_mode import evaluation_mode
from compress.graph.coupling import Coupling, Couplings
from compress.graph.layers import CONVOLUTIONS
from compress.inputs import Inputs

_SIZES_OF_TORCH: dict[str, tuple[type[nn.Module], ...]] = {
    "unflattened_size": (nn.Unflatten,),
    "groups": CONVOLUTIONS,
    "num_groups": (nn.GroupNorm,),
    "num_channels": (nn.GroupNorm,),
}
"""The attributes of torch's own layers that an edit may change; `in_features` and others follow the weights."""

_MOST_TRIALS = 40
"""Without progress; most of them end in the first layer that does not run."""

_CLOSE = 1e-4
"""Relative, of a layer's output in a trial, or 20 times the precision of its numbers; the proof is stricter."""

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
    """Entry `index` of the attribute `name` of the module `path` may have to become one of `after`, likely first."""

    path: str
    name: str
    index: int
    before: int
    after: tuple[int, ...]


def following(
    model: nn.Module, small: nn.Module, known: Couplings, left: Mapping[Coupling, int], given: Inputs
) -> list[tuple[Integer, int]]:
    """The integers that must change, each with its new value, for `small` to compute on `given` what `model` does.

    Args:
        small: a copy of `model` whose tensors are cut, and whose integers are those of `model`; they are again when
            this returns.
        left: how many nodes of each coupling are left.

    Returns:
        As few as possible; none if no choice was found.
    """
    groups = _groups(model, _integers(model, known, left))
    if not groups:
        return []
    trials = _Trials(model, small, given)
    chosen = trials.search(groups)
    for integer in list(chosen):  # what need not change keeps its value, since the code may use it for something else
        fewer = {key: value for key, value in chosen.items() if key.name != integer.name or key.index != integer.index}
        if len(fewer) < len(chosen) and trials.run(fewer).complete:
            chosen = fewer
    return list(chosen.items())


def _integers(model: nn.Module, known: Couplings, left: Mapping[Coupling, int]) -> list[Integer]:
    """Those of the module whose code spells out a size that changes come first, then those of the modules around it
    and around tensors that shrink."""
    modules = dict(model.named_modules())
    found: dict[tuple[str, str, int], tuple[int, int, list[int]]] = {}
    for distance, path, before, after in sorted(_changes(modules, known, left), key=lambda change: change[0]):
        for name in _names(modules[path]):
            for index, value in enumerate(integers_of(modules[path], name)):
                if value == before:
                    options = found.setdefault((path, name, index), (distance, before, []))[2]
                    options.extend([after] if after not in options else [])
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    return [Integer(*place, before, tuple(after)) for place, (_, before, after) in ordered]


def _names(module: nn.Module) -> list[str]:
    """Attributes of the object and of its class."""
    classes = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.") and kind is not object]
    return list(dict.fromkeys([*vars(module), *(name for kind in classes for name in vars(kind))]))


def _changes(
    modules: Mapping[str, nn.Module], known: Couplings, left: Mapping[Coupling, int]
) -> Iterator[tuple[int, str, int, int]]:
    """(distance, module, before, after) of every size that changes, for the modules that may have it as an integer."""
    layers = {node.name: str(node.meta["layer"]) for node in known.trace.graph.nodes if "layer" in node.meta}
    for number, before, after in known.resized(left, "number"):
        for distance, path in _around(modules, layers[number.name.rpartition(".")[0]]):
            yield distance, path, before, after
    lengths: dict[tuple[str, int], int] = defaultdict(int)
    shapes = {alias: known.shapes[name] for name in known.shapes for alias in known.names[name]}
    for coupling, count in left.items():
        for member in coupling.members:
            cut = (member.size - count) * member.outer * member.inner
            lengths[member.tensor, member.dim] += cut
            for distance, path in _around(modules, member.tensor.rpartition(".")[0]):
                yield distance + 1, path, coupling.size, count
    for (tensor, dim), cut in lengths.items():
        if tensor in shapes:
            for distance, path in _around(modules, tensor.rpartition(".")[0]):
                yield distance + 1, path, shapes[tensor][dim], shapes[tensor][dim] - cut


def _around(modules: Mapping[str, nn.Module], path: str) -> Iterator[tuple[int, str]]:
    """The module and all around it, with their distances; containers have no code of their own and do not count."""
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


@dataclass
class _Progress:
    """agreeing: how many outputs of modules were those of the network, before one differed or failed to be computed."""

    agreeing: int = 0
    entered: set[str] = field(default_factory=set)
    complete: bool = False


class _DiffersError(Exception):
    pass


class _Trials:
    """Runs of the cut network with some integers changed, compared with the network layer by layer."""

    def __init__(self, model: nn.Module, small: nn.Module, given: Inputs) -> None:
        self._small, self._given = small, given
        self._expected: list[tuple[str, list[Tensor]]] = []
        with evaluation_mode(model), ExitStack() as stack:
            for name, module in model.named_modules():
                hook = module.register_forward_hook(
                    lambda _module, _inputs, output, name=name: self._expected.append((name, _tensors(output)))
                )
                stack.callback(hook.remove)
            given.mapped(Tensor.clone).call(model)

    def search(self, groups: Sequence[Group]) -> dict[Integer, int]:
        """Integers to change, found by the layers in the order in which they run: what makes one right is kept."""
        chosen: dict[Integer, int] = {}
        progress = self.run(chosen)
        while not progress.complete:
            near = [group for group in groups if any(one.path in progress.entered for one in group)]
            free = [group for group in near if not any(one in chosen for one in group)]
            for more in islice(_choices(free), _MOST_TRIALS):
                further = self.run({**chosen, **more})
                if further.complete or further.agreeing > progress.agreeing:
                    chosen, progress = {**chosen, **more}, further
                    break
            else:
                return {}
        return chosen

    def run(self, chosen: Mapping[Integer, int]) -> _Progress:
        progress, finished = _Progress(), 0

        def enter(name: str) -> None:
            progress.entered.add(name)

        def compare(name: str, output: object) -> None:
            nonlocal finished
            if finished >= len(self._expected) or self._expected[finished][0] != name:
                raise _DiffersError
            progress.agreeing += _agree(self._expected[finished][1], _tensors(output))
            finished += 1

        self._set(chosen)
        try:
            with evaluation_mode(self._small), ExitStack() as stack:
                for name, module in self._small.named_modules():
                    before = module.register_forward_pre_hook(lambda _module, _inputs, name=name: enter(name))
                    after = module.register_forward_hook(
                        lambda _module, _inputs, output, name=name: compare(name, output)
                    )
                    stack.callback(before.remove)
                    stack.callback(after.remove)
                self._given.mapped(Tensor.clone).call(self._small)
            progress.complete = finished == len(self._expected)
        except Exception:  # a size that does not fit may fail anywhere in the network's code
            progress.complete = False
        finally:
            self._set({integer: integer.before for integer in chosen})
        return progress

    def _set(self, values: Mapping[Integer, int]) -> None:
        for integer, value in values.items():
            set_integer(self._small.get_submodule(integer.path), integer.name, integer.index, value)


def _choices(groups: Sequence[Group]) -> Iterator[dict[Integer, int]]:
    """All groups at their likeliest values, then few of them at any, the likeliest first."""
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


def _tensors(output: object) -> list[Tensor]:
    return [leaf.detach().clone() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _agree(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether a module's output is the network's; False if it is narrower, so that its entries cannot be compared.

    Raises:
        _DiffersError: it is something else.
    """
    if len(expected) != len(found):
        raise _DiffersError
    for one, other in zip(expected, found, strict=True):
        if one.ndim != other.ndim or any(size < now for size, now in zip(one.shape, other.shape, strict=True)):
            raise _DiffersError
        if one.shape == other.shape and not _close(one, other):
            raise _DiffersError
    return all(one.shape == other.shape for one, other in zip(expected, found, strict=True))


def _close(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point() or one.dtype != other.dtype:
        return torch.equal(one, other)
    close = max(_CLOSE, 20 * torch.finfo(one.dtype).eps)
    finite = one[one.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    return torch.allclose(one, other, rtol=close, atol=close * scale, equal_nan=True)
