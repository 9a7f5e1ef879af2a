"""A network of a slim network's shape with random weights, as if it had been built in that shape."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from compress.errors import UnsupportedModelError
from compress.evaluation_mode import evaluation_mode
from compress.graph.trace import tensors_of
from compress.graph.twin import copied
from compress.inputs import inputs_of
from compress.slimming.edits import insert_bottleneck, state_widths
from compress.slimming.norms import CountedLayerNorm
from compress.slimming.slim_graph import SlimGraph

Build = Callable[[int], nn.Module]
"""seed -> the network before anything was cut, with random weights."""

Tensors = Mapping[str, Tensor]

_ENOUGH, _MOST_DRAWS = 4096, 32
"""Initial values are drawn until there are this many, or this often, to measure their size."""


def fresh(small: nn.Module, build: Build, seed: int, example: object) -> nn.Module:
    """A network of `small`'s shape with the weights of `build(seed)`, in training mode; `small` does not change.

    Tensors that were cut get entries of the built ones, evenly spaced along each dimension. The weights of their layer
    are multiplied by a factor: the size of the values that its `reset_parameters` draws at the slim shape, divided by
    that at the earlier shape. So a layer keeps the initial distribution that its builder chose, adapted to its inputs.
    If weights are the same for another seed, like those of a pretrained network, the layer gets what `reset_parameters`
    draws.

    Buffers and frozen parameters that were cut are those of `small`, unless they are built as a constant, like the
    statistics of norms. Norms that count the nodes before the cut count the remaining ones.

    Args:
        example: inputs of the network.

    Raises:
        UnsupportedModelError: `small` is a traced graph, and the network computes something else in training.
    """
    built, other = build(seed), build(seed + 1)
    _require_trainable(small, built, example)
    result = copy.deepcopy(small) if isinstance(small, fx.GraphModule) else copied(small)
    wanted = tensors_of(result)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for network in (built, other):
            _take_apart(network, small)
        for name, value in _values(built, tensors_of(other), wanted):
            wanted[name].copy_(value)
    for module in result.modules():
        module.training = True  # `train()` of a graph warns
        if isinstance(module, CountedLayerNorm):
            module.count = module.normalized_shape[0]
    return result


def _require_trainable(small: nn.Module, built: nn.Module, example: object) -> None:
    """Refuse a graph, which computes as in evaluation mode, of a network that does not train like that."""
    if not isinstance(small, SlimGraph):
        return
    if small.lost_gradients:
        raise UnsupportedModelError(f"the slim network is a traced graph, and {small.lost_gradients}")
    given, trial = inputs_of(example).mapped(Tensor.cpu), copied(built)
    with torch.random.fork_rng():
        with evaluation_mode(trial):
            quiet = tree_leaves(given.call(trial))
        with torch.no_grad():
            training = tree_leaves(given.call(trial.train()))
    pairs = zip(quiet, training, strict=True)
    if not all(torch.allclose(one, two, rtol=1e-4, atol=1e-5) for one, two in pairs if isinstance(one, Tensor)):
        raise UnsupportedModelError(
            "the slim network is a traced graph, which computes as in evaluation mode, and the network computes "
            "something else in training (dropout, or statistics of batches)"
        )


def _take_apart(network: nn.Module, small: nn.Module) -> None:
    """Insert the layers that stages have inserted into `small`, with weights as their class draws them."""
    for edit in getattr(small, "shape_edits", ()):
        if edit.kind == "bottleneck":
            insert_bottleneck(network, edit.name)
            for layer in network.get_submodule(edit.name).children():
                _reset(layer)


def _values(built: nn.Module, other: Tensors, wanted: Tensors) -> Iterator[tuple[str, Tensor]]:
    """The weights in the shapes of `wanted`, by name, without those that keep their value."""
    for path, module in built.named_modules():
        own = {f"{path}.{name}".lstrip("."): name for name, _ in _direct(module)}
        own = {name: leaf for name, leaf in own.items() if name in wanted}
        tensors = {name: getattr(module, leaf) for name, leaf in own.items()}
        random = {name: _is_random(tensor, other[name]) for name, tensor in tensors.items()}
        cut = {name for name, tensor in tensors.items() if tensor.shape != wanted[name].shape}
        before, after = {}, {}
        if cut or not all(random.values()):
            before = _drawn(module, {})
            after = _drawn(module, {leaf: wanted[name].shape for name, leaf in own.items()})
        for name, tensor in tensors.items():
            leaf = own[name]
            if not tensor.requires_grad:
                if name not in cut or _is_constant(tensor):
                    yield name, _spaced(tensor, wanted[name].shape)
            elif not random[name] and leaf in after:
                yield name, after[leaf][0]
            else:
                factor = _size(after[leaf]) / _size(before[leaf]) if cut and leaf in after else 1.0
                yield name, _spaced(tensor, wanted[name].shape) * factor


def _direct(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _is_random(tensor: Tensor, other: Tensor) -> bool:
    """Whether a tensor depends on the seed, or is a constant."""
    return not torch.equal(tensor, other) or _is_constant(tensor)


def _is_constant(tensor: Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all()) if tensor.numel() else True


def _spaced(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Entries of a tensor, evenly spaced along each dimension, so that each of several joined parts keeps its share."""
    for dim, (before, after) in enumerate(zip(tensor.shape, shape, strict=True)):
        if before != after:
            tensor = tensor.index_select(dim, torch.linspace(0, before - 1, after).round().long())
    return tensor


def _drawn(module: nn.Module, shapes: Mapping[str, torch.Size]) -> dict[str, list[Tensor]]:
    """The values that the module's `reset_parameters` draws for its parameters, several times; empty if it has none.

    Args:
        shapes: the shapes of its parameters, where they are others.
    """
    trial = copied(module)
    for name, tensor in list(trial.named_parameters(recurse=False)):
        setattr(trial, name, nn.Parameter(tensor.new_zeros(shapes.get(name, tensor.shape))))
    state_widths(trial)
    if not _reset(trial):
        return {}
    own = dict(trial.named_parameters(recurse=False))
    fewest = min((tensor.numel() for tensor in own.values()), default=_ENOUGH)
    found: dict[str, list[Tensor]] = {name: [tensor.clone()] for name, tensor in own.items()}
    for _ in range(min(_MOST_DRAWS, _ENOUGH // max(1, fewest))):
        _reset(trial)
        for name, tensor in own.items():
            found[name].append(tensor.clone())
    return found


def _reset(module: nn.Module) -> bool:
    """Let the module draw its parameters; return whether it can."""
    for name in ("reset_parameters", "_reset_parameters"):
        with suppress(Exception):  # the user's own may need arguments
            getattr(module, name)()
            return True
    return False


def _size(draws: list[Tensor]) -> float:
    """Root of the mean square; 1 for zeros."""
    return float(torch.stack(draws).square().mean().sqrt()) or 1.0
