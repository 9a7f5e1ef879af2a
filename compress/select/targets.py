"""Targets: the parameters, or the layers' nodes, that patterns, modules and parameters name."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from compress.errors import InputError, TargetError, UnsupportedModelError
from compress.graph.branches import Branch, ResidualBranches
from compress.graph.coupling import Coupling, Couplings
from compress.graph.flow import layer_of
from compress.graph.parametrized import parametrized
from compress.options import check
from compress.shards import Part, Reducer, is_sharded, local
from compress.wording import count_of, did_you_mean

TargetLike = str | Tensor | nn.Module | tuple[nn.Module, str]
"""A shell pattern of qualified names, a parameter, a module (all that is in it), or a parameter as (module, name)."""

_PRUNABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Wanted = TargetLike | Iterable[TargetLike]


@dataclass(frozen=True)
class Weights:
    """Single weights, as `weights` says."""

    wanted: tuple[TargetLike, ...]
    exclude: tuple[TargetLike, ...] = ()
    bias: bool = False


@dataclass(frozen=True)
class Nodes:
    """Nodes of layers, as `nodes` says."""

    wanted: tuple[TargetLike, ...]
    exclude: tuple[TargetLike, ...] = ()


@dataclass(frozen=True)
class Branches:
    """Residual branches, as `branches` says."""

    wanted: tuple[TargetLike, ...]
    exclude: tuple[TargetLike, ...] = ()


AnyTarget = Weights | Nodes | Branches


def weights(*wanted: Wanted, exclude: Wanted = (), bias: bool = False) -> Weights:
    """Single weights as the target of a pruner.

    Args:
        wanted: any mix of
            - a shell pattern of qualified parameter names ("decoder.*", "*.weight"). It matches weights (parameters
              of two or more dimensions), and with `bias=True` biases. A name without wildcards matches that
              parameter, whatever its dimensions; a module's name matches everything in the module;
            - a module, a parameter, or a pair (module, name of a parameter).
        exclude: the same forms, for parameters to leave out; a pattern may also match layers' names.

    Raises:
        InputError: an argument has another form, or `wanted` is empty.
    """
    check("bias", bias, bool)
    return Weights(_listed(wanted, "weights"), _listed((exclude,), "exclude", empty=True), bias)


def nodes(*wanted: Wanted, exclude: Wanted = ()) -> Nodes:
    """Outputs of layers (nodes, channels, attention heads) as the target of a pruner, with everything coupled to them.

    Args:
        wanted: any mix of shell patterns of layers' names ("blocks.*"), modules, and parameters of layers.
        exclude: the same forms; these layers and everything coupled to them keep their width.

    Raises:
        InputError: an argument has another form, or `wanted` is empty.
    """
    return Nodes(_listed(wanted, "nodes"), _listed((exclude,), "exclude", empty=True))


def branches(*wanted: Wanted, exclude: Wanted = ()) -> Branches:
    """Residual branches as the target of a pruner: each is removed as a whole, and only the stream beside it is left.

    Args:
        wanted: any mix of shell patterns, modules, and parameters. A pattern is of the layer at the end of a branch
            ("layer1.0.bn2", "encoder.*.mlp.3") or of a module that contains this layer ("layer1.0"); a module takes
            all branches that end in it.
        exclude: the same forms; these branches are kept.

    Raises:
        InputError: an argument has another form, or `wanted` is empty.
    """
    return Branches(_listed(wanted, "branches"), _listed((exclude,), "exclude", empty=True))


def target_of(wanted: object) -> AnyTarget:
    """A pruner's target; patterns and the like mean weights."""
    if isinstance(wanted, AnyTarget):
        return wanted
    return Weights(_listed((wanted,), "targets"))


_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class Target:
    """One parameter of one module; `path` is its qualified name in the model, as in its state_dict."""

    path: str
    module: nn.Module = field(compare=False, repr=False)
    name: str

    @property
    def parameter(self) -> nn.Parameter:
        return getattr(self.module, self.name)  # type: ignore[no-any-return]


def resolve(model: nn.Module, wanted: Weights) -> list[Target]:
    """The targeted parameters, in the order of `wanted.wanted` (a pattern's in the model's own), each once.

    A parameter that several modules share (tied embeddings) is one target, by the first name that was chosen: a mask
    writes into the parameter itself. Excluded by one of its names, it is left out.

    Raises:
        TargetError: something matches nothing, is not a parameter of the model, is pruned already, is parametrized (by
            weight_norm, say), holds other things than floating-point numbers, or is spread over processes that have
            other targets too; or nothing is left.
    """
    everything = _parameters(model)
    excluded = _all_excluded(model, wanted, everything)
    _refuse_parametrized(model, wanted, everything, excluded)
    by_path = {target.path: target for target in everything}
    chosen = dict.fromkeys(path for item in wanted.wanted for path in _matches(model, item, everything, wanted.bias))
    owners = _owners(everything)
    shared = {id(by_path[path].parameter): by_path[path] for path in reversed(chosen)}  # the first name of each is left
    targets = [by_path[path] for path in chosen if shared[id(by_path[path].parameter)].path == path]
    targets = [one for one in targets if not any(owner.path in excluded for owner in owners[id(one.parameter)])]
    if chosen and not targets:
        raise TargetError(
            f"exclude leaves out all of {count_of(len(chosen), 'target')} ({_listing(list(chosen))}); nothing is left"
        )
    _require_same_in_all_processes(targets)
    for target in targets:
        for owner in owners[id(target.parameter)]:
            _refuse_unfit(owner)
    return targets


def couplings_of(model: nn.Module, wanted: Nodes, known: Couplings) -> tuple[Coupling, ...]:
    """The couplings whose nodes are targeted, each once.

    Raises:
        TargetError, UnsupportedModelError: something matches no layer whose nodes can be pruned; or nothing is left.
    """
    patterns = [pattern for item in wanted.wanted for pattern in _layers(model, item, known)]
    excluded = {layer for item in wanted.exclude for layer in _excluded_layers(model, item)}
    for tensor in parametrized(model):
        layer = layer_of(tensor.path)
        if layer not in excluded and any(fnmatchcase(layer, pattern) for pattern in patterns):
            raise TargetError(tensor.refusal(layer))
    found = known.matching(patterns)
    left = tuple(coupling for coupling in found if not excluded & known.layers(coupling))
    for tensor in parametrized(model):
        for coupling in left:
            if any(tensor.holds(member.tensor) for member in coupling.members):
                raise TargetError(tensor.refusal(coupling.name))
    if found and not left:
        names = [coupling.name for coupling in found]
        raise TargetError(f"exclude leaves out all of {len(found)} ({_listing(names)}); nothing is left")
    return left


def branches_of(model: nn.Module, wanted: Branches, known: ResidualBranches) -> tuple[Branch, ...]:
    """The targeted branches, in the order of the forward pass.

    Raises:
        TargetError, UnsupportedModelError: something matches no branch that can be removed; or nothing is left.
    """
    names = [branch.name for branch in known.found]
    taken = {name for item in wanted.wanted for name in _ending_in(_pattern(model, item), names, known)}
    excluded = {name for item in wanted.exclude for name in names if _ends_in(name, _pattern(model, item))}
    if not taken - excluded:
        raise TargetError(f"exclude leaves out all of {count_of(len(taken), 'branch', 'branches')}; nothing is left")
    _refuse_masked(model, known, taken - excluded)
    return tuple(branch for branch in known.found if branch.name in taken - excluded)


def describe(wanted: AnyTarget) -> str:
    """The target as reports show it: "decoder.*, latent.weight with biases"."""
    text = ", ".join(map(_said, wanted.wanted))
    if isinstance(wanted, Weights) and wanted.bias:
        text += " with biases"
    return text + (f" without {', '.join(map(_said, wanted.exclude))}" if wanted.exclude else "")


# --- what is given ---


def _listed(wanted: tuple[object, ...], what: str, *, empty: bool = False) -> tuple[TargetLike, ...]:
    found: list[TargetLike] = []
    for item in wanted:
        if _is_target(item):
            found.append(item)
        elif isinstance(item, Iterable) and not isinstance(item, str | bytes | dict):
            found += [one if _is_target(one) else _refuse(one, what) for one in item]
        else:
            _refuse(item, what)
    if not found and not empty:
        raise InputError(f"{what}: nothing is given; expected patterns, modules or parameters, such as 'decoder.*'")
    return tuple(found)


def _is_target(item: object) -> TypeGuard[TargetLike]:
    if isinstance(item, tuple):
        return len(item) == 2 and isinstance(item[0], nn.Module) and isinstance(item[1], str)
    return isinstance(item, Tensor | nn.Module) or (isinstance(item, str) and item != "")


def _refuse(item: object, what: str) -> TargetLike:
    found = f"{type(item).__name__} ({str(item)[:60] or 'empty'})"
    amount = "; the amount is a keyword, as in sparsity=0.9" if isinstance(item, int | float) else ""
    raise InputError(
        f"{what}: found {found}; expected a pattern such as 'decoder.*', a module, a parameter, a pair (module, name), "
        f"or a list of these{amount}"
    )


def _said(item: TargetLike) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, tuple):
        return f"{type(item[0]).__name__}.{item[1]}"
    return f"a parameter of {tuple(item.shape)}" if isinstance(item, Tensor) else type(item).__name__


# --- weights ---


def _parameters(model: nn.Module) -> list[Target]:
    return [
        Target(f"{path}.{name}" if path else name, module, name)
        for path, module in model.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]


def _owners(everything: Sequence[Target]) -> dict[int, list[Target]]:
    """All names of each parameter, by its id."""
    owners: dict[int, list[Target]] = {}
    for target in everything:
        owners.setdefault(id(target.parameter), []).append(target)
    return owners


def _matches(model: nn.Module, item: TargetLike, everything: Sequence[Target], bias: bool) -> list[str]:
    if isinstance(item, str):
        found = _taken_by(item, everything, bias)
        found = found or [target.path for target in _within(item, everything) if _is_weight(target, bias)]
        if not found:
            names = [target.path for target in everything if target.parameter.dim() >= 2]
            raise TargetError(
                f"the pattern {item!r} matches no {'parameter' if bias else 'weight'} of the model; "
                f"its weights are {_listing(names)}{did_you_mean(item, names)}"
            )
        return found
    if isinstance(item, nn.Module):
        found = [target.path for target in _within(_name(model, item), everything) if _is_weight(target, bias)]
        if not found:
            raise TargetError(f"the module {_name(model, item)!r} ({type(item).__name__}) has no weights")
        return found
    return [_path(item, everything)]


def _all_excluded(model: nn.Module, wanted: Weights, everything: Sequence[Target]) -> set[str]:
    """The excluded names. A tensor that is computed from parameters has one too, which excludes these with it."""
    computed = list(parametrized(model))
    named = [*everything, *(Target(tensor.path, tensor.module, tensor.name) for tensor in computed)]
    excluded = {path for item in wanted.exclude for path in _excluded(model, item, named)}
    return excluded.union(*(tensor.behind for tensor in computed if tensor.path in excluded))


def _excluded(model: nn.Module, item: TargetLike, everything: Sequence[Target]) -> list[str]:
    if isinstance(item, nn.Module):
        return [target.path for target in _within(_name(model, item), everything)]
    if not isinstance(item, str):
        return [_path(item, everything)]
    found = [t.path for t in everything if fnmatchcase(t.path, item) or fnmatchcase(t.path.rpartition(".")[0], item)]
    found = found or [target.path for target in _within(item, everything)]
    if not found:
        near = did_you_mean(item, [target.path for target in everything])
        raise TargetError(f"exclude: the pattern {item!r} matches no parameter and no layer of the model{near}")
    return found


def _path(item: Tensor | tuple[nn.Module, str], everything: Sequence[Target]) -> str:
    """The name of one parameter, by itself or as (module, name)."""
    if isinstance(item, Tensor):
        found = [target.path for target in everything if target.module._parameters.get(target.name) is item]
        if not found:
            raise TargetError(f"found a tensor of shape {tuple(item.shape)} that is not a parameter of the model")
        return found[0]
    module, name = item
    found = [target.path for target in everything if target.module is module and target.name == name]
    if not found:
        raise TargetError(f"{type(module).__name__} has no parameter {name!r}, or is not a part of the model")
    return found[0]


def _within(name: str, everything: Sequence[Target]) -> list[Target]:
    """All parameters of the module of that name."""
    return [target for target in everything if not name or target.path.startswith(f"{name}.")]


def _name(model: nn.Module, module: nn.Module) -> str:
    names: list[str] = [name for name, found in model.named_modules() if found is module]
    if names:
        return names[0]
    raise TargetError(f"found a module ({type(module).__name__}) that is not a part of the model")


def _is_weight(target: Target, bias: bool) -> bool:
    return target.parameter.dim() >= 2 or (bias and "bias" in target.name)


def _taken_by(pattern: str, everything: Sequence[Target], bias: bool) -> list[str]:
    if _WILDCARDS.isdisjoint(pattern):  # a name, as each of thousands may be
        return [target.path for target in everything if target.path == pattern]
    fitting = [target for target in everything if fnmatchcase(target.path, pattern)]
    return [target.path for target in fitting if target.path == pattern or _is_weight(target, bias)]


def _listing(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- nodes ---


def _layers(model: nn.Module, item: TargetLike, known: Couplings) -> list[str]:
    """Patterns of layers' names. A module that computes no nodes itself represents the layers in it."""
    if isinstance(item, str):
        return [item]
    if isinstance(item, nn.Module):
        name = _name(model, item)
        return [name] if name and known.has(name) else [f"{name}.*" if name else "*"]
    return [layer_of(_path(item, _parameters(model)))]


def _excluded_layers(model: nn.Module, item: TargetLike) -> set[str]:
    if isinstance(item, Tensor | tuple):
        return {layer_of(_path(item, _parameters(model)))}
    pattern = _name(model, item) if isinstance(item, nn.Module) else item
    names = {name for name, _ in model.named_modules() if name} | {name for name, _ in model.named_parameters()}
    found = {name for name in names if fnmatchcase(name, pattern)}
    if not found:
        raise TargetError(
            f"exclude: the pattern {pattern!r} matches no layer of the model{did_you_mean(pattern, names)}"
        )
    return found | {name for name in names if any(name.startswith(f"{parent}.") for parent in found)}


# --- branches ---


def _pattern(model: nn.Module, item: TargetLike) -> str:
    """Of the layers at the ends of branches, or of modules that they are in."""
    if isinstance(item, str):
        return item
    return _name(model, item) or "*" if isinstance(item, nn.Module) else layer_of(_path(item, _parameters(model)))


def _ends_in(name: str, pattern: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def _ending_in(pattern: str, names: Sequence[str], known: ResidualBranches) -> list[str]:
    found = [name for name in names if _ends_in(name, pattern)]
    if not found:
        for name, reason in known.kept.items():
            if _ends_in(name, pattern):
                raise UnsupportedModelError(f"The branch that ends in {name!r} cannot be removed: {reason}.")
        where = f"those that can be removed end in {_listing(names)}" if names else "no branch of it can be removed"
        raise TargetError(
            f"the pattern {pattern!r} matches no residual branch of the model; {where}{did_you_mean(pattern, names)}"
        )
    return found


def _refuse_masked(model: nn.Module, known: ResidualBranches, names: Collection[str]) -> None:
    ends = {name for branch in known.found if branch.name in names for name in branch.ends}
    for target in _parameters(model):
        if target.path.removesuffix("_orig") in ends:
            _refuse_unfit(target)


# --- what cannot be pruned ---


def _refuse_parametrized(
    model: nn.Module, wanted: Weights, everything: Sequence[Target], excluded: Collection[str]
) -> None:
    """Refuse a tensor that is computed from others, where something takes it or what it is computed from."""
    for tensor in parametrized(model):
        if tensor.path in excluded or set(tensor.behind) <= set(excluded):
            continue
        behind = [target for target in everything if target.path in tensor.behind]
        named = [Target(tensor.path, tensor.module, tensor.name), *behind]
        takers = [item for item in wanted.wanted if any(_names(model, item, target) for target in named)]
        if any(not isinstance(item, str | nn.Module) or item in (tensor.path, *tensor.behind) for item in takers):
            raise TargetError(tensor.refusal(tensor.path))
        # A pattern or a module takes weights alone.
        is_bias = "bias" in tensor.name
        if takers and (wanted.bias if is_bias else any(t.parameter.dim() >= 2 for t in behind) or tensor.dim >= 2):
            raise TargetError(tensor.refusal(tensor.path))


def _names(model: nn.Module, item: TargetLike, target: Target) -> bool:
    """Whether `item` is the target, a pattern of its name, or a module that it is in."""
    if isinstance(item, str):
        return fnmatchcase(target.path, item) or target.path.startswith(f"{item}.")
    if isinstance(item, nn.Module):
        return bool(_within(_name(model, item), [target]))
    if isinstance(item, Tensor):
        return item is vars(target.module).get(target.name, target.module._parameters.get(target.name))
    return item[0] is target.module and item[1] == target.name


def _refuse_unfit(target: Target) -> None:
    """A parameter that is masked already, or whose entries are not floating-point numbers in memory."""
    parameter = target.parameter
    if f"{target.name.removesuffix('_orig')}_mask" in target.module._buffers:
        raise TargetError(
            f"{target.path.removesuffix('_orig')} is pruned already: call finalize() of its pruner, or "
            "torch.nn.utils.prune.remove, first"
        )
    if parameter.dtype not in _PRUNABLE:
        raise TargetError(
            f"{target.path} is of {parameter.dtype}; only floating-point weights can be pruned: exclude it"
        )
    if parameter.is_meta:
        raise TargetError(f"{target.path} is on the meta device, where it has no values: load the weights first")


def _require_same_in_all_processes(targets: Sequence[Target]) -> None:
    """Where targets are sharded, each process must have a part, in known places, of the same ones."""
    wrong = next(filter(None, map(_misplaced, targets)), None)
    named = [(target.path, tuple(target.parameter.shape), is_sharded(target.parameter)) for target in targets]
    reducer = Reducer.of([target.parameter for target in targets])
    other = reducer.differing(repr(named) if wrong is None else wrong)  # all of them learn of it
    if wrong is not None:
        raise TargetError(wrong)
    if other is not None:
        raise TargetError(
            f"process {other} has other targets than process 0, as in pipeline parallelism, where no process has a "
            "part of each layer; prune the network before it is divided, or each stage in a separate run"
        )


def _misplaced(target: Target) -> str | None:
    """Why it is not known which entries of a sharded parameter this process has; None if it is."""
    parameter: Any = target.parameter
    if not is_sharded(parameter):
        return None
    part, found = Part.of(parameter), tuple(local(parameter).shape)
    if any(placement.is_partial() for placement in parameter.placements) or not part.is_sorted:
        return (
            f"{target.path} is spread over processes as {parameter.placements}, where no process has entries in their "
            "order; only what is placed by Shard and Replicate can be pruned"
        )
    if part.local_shape != found:
        return (
            f"{target.path} has the shape {tuple(parameter.shape)}, of which this process has {found} instead of "
            f"{part.local_shape}; exclude it"
        )
    return None
