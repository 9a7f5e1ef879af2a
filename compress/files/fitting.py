"""Which weights of a file are a network's, and what was done to their names; or what differs, where none are.

Wrappers write their own part into every name: "module.", "_orig_mod.", Lightning's "model.". Weights fit where the
names under one prefix, without such parts, are exactly the network's, with the same shapes. Names outside the prefix
are of other networks, and are left out; under it, none may be left over: they would be of a larger network.
Tensors of whole numbers are not weights: a counter may be left over, and a table of positions may be missing.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

import torch
from torch import Tensor, nn

from compress.files.layouts import Contents, quoted, rank
from compress.wording import listed

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that torch's wrappers add: DataParallel and AveragedModel, compile, FSDP, activation checkpointing."""

_ANCHORS = 20
"""Names of the network that are looked for in a set that does not fit, and prefixes that are tried."""

_SETS = 20
"""Sets in which they are looked for, the largest of the file."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Needs:
    """The tensors of a network.

    tensors: by name; those that it ties have several.
    first: the first name of the same tensor, by name.
    spare: buffers of whole numbers, which a file may lack: the network has built them.
    """

    tensors: Weights
    first: Mapping[str, str]
    spare: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module) -> "Needs":
        tensors = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
        firsts: dict[int, str] = {}
        first = {name: firsts.setdefault(id(tensor), name) for name, tensor in named if name in tensors}
        spare = {name for name in buffers & tensors.keys() if _is_spare(tensors[name]) and not tensors[name].is_meta}
        return cls(tensors, {name: first.get(name, name) for name in tensors}, frozenset(spare))

    def lacking(self, names: Container[str]) -> list[str]:
        """The tensors that are not among `names` under any of their own."""
        there = {self.first[name] for name in self.tensors if name in names}
        return [name for name in self.tensors if self.first[name] not in there]


@dataclass(frozen=True)
class Fit:
    """A part of a set of weights that has the network's names.

    key: of the set; prefix: of the part's names in the file; added: the prefix that only the network's names have.
    names: the file's name for each of the network's that is in the file.
    outside: how many weights of the set are not in the part.
    differing: how many shapes are not the network's.
    """

    key: str
    prefix: str
    added: str
    names: Mapping[str, str]
    outside: int
    differing: int

    @property
    def address(self) -> str:
        """What may be named after a "#": the key, and the prefix."""
        return "/".join(part for part in (self.key, self.prefix.rstrip(".")) if part)

    @property
    def order(self) -> tuple[bool, bool, int]:
        average, known = rank(self.address)
        return average, self.outside > 0, known


def fits(key: str, found: Weights, needs: Needs) -> list[Fit]:
    """The parts of a set that have the network's names."""
    made: dict[frozenset[str], Fit] = {}
    for plain in (str, _unwrapped):
        theirs, ours = {plain(name): name for name in found}, {plain(name): name for name in needs.tensors}
        if len(theirs) == len(found) and len(ours) == len(needs.tensors):  # else two names have become one
            for fit in _parts(key, found, needs, theirs, ours):
                made.setdefault(frozenset(fit.names.values()), fit)
    return list(made.values())


def _parts(key: str, found: Weights, needs: Needs, theirs: Mapping[str, str], ours: Mapping[str, str]) -> Iterator[Fit]:
    ordered = sorted(theirs)
    weights = sum(not _is_spare(tensor) for tensor in found.values())
    groups = _groups(ours, needs)
    for added in _common(groups):
        for prefix in _prefixes(theirs, groups, added):
            under = [(name, own) for name, own in ours.items() if name.startswith(added)]
            pairs = ((own, prefix + name.removeprefix(added)) for name, own in under)
            names = {own: theirs[name] for own, name in pairs if name in theirs}
            inside = _weights_under(prefix, ordered, theirs, found, set(names.values()))
            if inside is not None:
                differing = sum(found[old].shape != needs.tensors[own].shape for own, old in names.items())
                yield Fit(key, prefix, added, names, weights - inside, differing)


def _weights_under(
    prefix: str, ordered: list[str], theirs: Mapping[str, str], found: Weights, taken: set[str]
) -> int | None:
    """How many weights have names under the prefix; None where one is not `taken`, as in a larger network."""
    count = 0
    for place in range(bisect_left(ordered, prefix), len(ordered)):
        if not (name := ordered[place]).startswith(prefix):
            break
        weight = not _is_spare(found[theirs[name]])
        if weight and theirs[name] not in taken:
            return None
        count += weight
    return count


def _groups(ours: Mapping[str, str], needs: Needs) -> list[list[str]]:
    """The names of each tensor that the file must have: one, or those of a tie, of which any is enough."""
    groups: dict[str, list[str]] = {}
    for name, own in ours.items():
        if own not in needs.spare:
            groups.setdefault(needs.first[own], []).append(name)
    return list(groups.values())


def _common(groups: Sequence[Sequence[str]]) -> list[str]:
    """ "" and the prefixes that all of the network's tensors have in a name, such as "bert."."""
    first = min(groups, key=len, default=[])
    parts = [name.split(".") for name in first]
    starts = [".".join([*each[:count], ""]) for each in parts for count in range(1, len(each))]
    return ["", *(start for start in starts if all(any(name.startswith(start) for name in group) for group in groups))]


def _prefixes(theirs: Mapping[str, str], groups: Sequence[Sequence[str]], added: str) -> list[str]:
    """Each prefix, "" included, under which the file has all of the network's names that it must have."""
    if not groups:
        return []
    wanted = [[name.removeprefix(added) for name in group if name.startswith(added)] for group in groups]
    ends = dict.fromkeys(
        name.removesuffix(anchor)
        for anchor in min(wanted, key=len)
        for name in theirs
        if name == anchor or name.endswith(f".{anchor}")
    )
    return [prefix for prefix in ends if all(any(prefix + name in theirs for name in group) for group in wanted)]


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _is_spare(tensor: Tensor) -> bool:
    """Whether it holds positions, counts or a mask, which nothing learns; quantized weights are of other types."""
    return tensor.dtype in (torch.int64, torch.bool)


# --- the one that is taken ---


def chosen(file: Contents, needs: Needs) -> tuple[Fit, list[Fit]]:
    """The part of the file that is loaded, and the others that fit as well; see `layouts.rank` for the order.

    Where none fits, the part that comes closest, whose names may be others than the network's.
    """
    found = [fit for key, tensors in file.sets.items() for fit in fits(key, tensors, needs)]
    if good := sorted((fit for fit in found if not fit.differing), key=lambda fit: fit.order):
        return good[0], good[1:]
    return min(found, key=lambda fit: fit.differing, default=None) or _closest(file.sets, needs), []


def _closest(sets: Mapping[str, Weights], needs: Needs) -> Fit:
    """The part of a set that shares most names with the network, with all of its names."""
    largest = sorted(sets, key=lambda key: -len(sets[key]))[:_SETS]
    found = [(hits, fit) for key in largest for hits, fit in _near(key, sets[key], needs)]
    return max(found, key=lambda pair: (pair[0], -len(pair[1].names)))[1]


def _near(key: str, found: Weights, needs: Needs) -> Iterator[tuple[int, Fit]]:
    """How many names a part shares with the network, and the part, under the most frequent prefixes."""
    theirs, ours = {_unwrapped(name): name for name in found}, {_unwrapped(name): name for name in needs.tensors}
    if len(theirs) < len(found) or len(ours) < len(needs.tensors):
        theirs, ours = {name: name for name in found}, {name: name for name in needs.tensors}
    for added in _common(_groups(ours, needs)):
        anchors = [
            name.removeprefix(added) for name in islice((name for name in ours if name.startswith(added)), _ANCHORS)
        ]
        ends = Counter(name.removesuffix(end) for end in anchors for name in theirs if f".{name}".endswith(f".{end}"))
        for prefix in {"": 1} | dict(ends.most_common(_ANCHORS)):
            hits = sum(prefix + name.removeprefix(added) in theirs for name in ours if name.startswith(added))
            under = [name for name in theirs if name.startswith(prefix)]
            new = {name: added + name.removeprefix(prefix) for name in under}
            names = {ours.get(new[name], new[name]): theirs[name] for name in under}
            yield hits, Fit(key, prefix, added, names, len(theirs) - len(under), 0)


def where(fit: Fit) -> str:
    """Which weights those are, such as: the weights under "state_dict", without the prefix "model."."""
    text = "the weights" + (f' under "{fit.key:.100}"' if fit.key else "")
    if fit.prefix:
        text += f', without the prefix "{fit.prefix:.100}"'
    if fit.added:
        text += f', with the prefix "{fit.added:.100}"'
    plain = {fit.prefix + own.removeprefix(fit.added) for own in fit.names}
    parts = {part for name in set(fit.names.values()) - plain for part in name.split(".")} & _WRAPPERS
    if parts:
        text += f", without {quoted(sorted(parts))} in names"
    return text


def note(file: Contents, fit: Fit, source: str, kept: Sequence[str] = (), others: Sequence[Fit] = ()) -> str | None:
    """What was unwrapped and left out, in one sentence; None where the file holds the network's weights and no more.

    Args:
        kept: names of tensors that the file lacks and the network has built itself.
        others: what fits as well.
    """
    parts = []
    if left := left_out(file, fit):
        shown = [name + (" (pickled objects that are not read)" if skipped else "") for name, skipped in left.items()]
        parts.append(f"left out {len(left)} other{'s' * (len(left) > 1)}: {listed(shown)}")
    if kept:
        parts.append(f"kept {listed(kept)} as the network builds {'them' if len(kept) > 1 else 'it'}")
    if others:
        also = [other.address for other in others]
        choosing = f"{source.partition('#')[0]}#{also[0]:.100}"
        parts.append(f"{quoted(also)} fit{'s' * (len(also) == 1)} too: name {choosing} to take it")
    taken = where(fit)
    return "; ".join([f"{source}: took {taken}", *parts]) if parts or taken != "the weights" else None


def left_out(file: Contents, fit: Fit) -> dict[str, bool]:
    """What is in the file beside the part that is taken, by name, and whether it has objects that were not read."""
    taken, own = set(fit.names.values()), fit.key.split("/") if fit.key else []
    found: dict[str, bool] = {}
    for key, tensors in file.sets.items():
        parts = key.split("/") if key else []
        if parts == own[: len(parts)]:  # the set itself, or one around it
            names = [name for name in tensors if key != fit.key or name not in taken]
            found |= {"/".join([*parts, _short(name, fit.prefix)]): False for name in names}
    for key, classes in {**dict.fromkeys(file.sets, ()), **file.others}.items():
        parts = key.split("/")
        shared = _shared(parts, own)
        if key and shared < len(parts):
            name = "/".join(parts[: shared + 1])
            found[name] = found.get(name, False) or bool(classes)
    return found


def _short(name: str, prefix: str) -> str:
    """A name outside of the prefix as its first part that is not of the prefix, such as "loss.*"."""
    parts, own = name.split("."), prefix.split(".")[:-1]
    shared = _shared(parts, own)
    return name if shared + 1 >= len(parts) else ".".join([*parts[: shared + 1], "*"])


def _shared(parts: Sequence[str], others: Sequence[str]) -> int:
    """How many parts both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, others, strict=False)))
