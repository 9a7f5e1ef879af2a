"""Scores of nodes from what they pass on: its variance, or the loss without it; float64 [nodes], larger = keep."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compress.batches import Pair, Pairs, pairs
from compress.errors import InputError, TargetError
from compress.evaluation_mode import evaluation_mode
from compress.select.saliency import layer_with_nodes, nodes_along
from compress.tasks import Loss, in_float64

See = Callable[["Tap", Tensor, int], Tensor]  # (tap, value, axis of its features) -> what takes the value's place


@dataclass(frozen=True, eq=False)  # tensors have no equality that gives one bool
class Tap:
    """Where nodes are seen: the features that a Linear or Conv layer takes or gives.

    owner: int64 [features], the node that each feature belongs to; several where a Flatten or Unflatten lies between.
    """

    layer: str
    side: Literal["input", "output"]
    owner: Tensor

    @property
    def nodes(self) -> int:
        return int(self.owner.max()) + 1


@torch.no_grad()
def variance(model: nn.Module, taps: Mapping[str, Tap], batches: Pairs) -> dict[str, Tensor]:
    """Variance of each node's activation over the samples, the mean over its positions.

    Each position counts on its own: a value that differs between positions but not between samples is a constant to
    the reader, whose bias can replace it.

    Args:
        taps: where the nodes of each layer are seen: best at their readers, behind the activation function.

    Raises:
        TargetError: a layer that is not used in the forward pass.
        InputError: no scoring data.
    """
    sums: dict[Tap, tuple[int, Tensor, Tensor]] = {}

    def see(tap: Tap, value: Tensor, axis: int) -> Tensor:
        flat = value.double().movedim(axis, 1)  # [samples, features, *positions]
        count, first, second = sums.get(tap, (0, torch.zeros(()), torch.zeros(())))
        sums[tap] = (count + len(flat), first + flat.sum(0), second + flat.square().sum(0))
        return value

    samples = 0
    with evaluation_mode(model), _tapped(model, taps.values(), see):
        for given, _ in pairs(batches, model):
            given.call(model)
            samples += given.rows
        if not samples:
            raise InputError("no scoring data for the nodes' variance: `batches` gave none")
    result = {}
    for name, tap in taps.items():
        count, first, second = sums[tap]
        spread = (second / count - (first / count).square()).clamp_min(0)
        spread = spread.reshape(len(tap.owner), -1).mean(1)
        owner = tap.owner.to(spread.device)
        result[name] = spread.new_zeros(tap.nodes).index_add(0, owner, spread) / owner.bincount()
    return result


@torch.no_grad()
def ablation(model: nn.Module, taps: Mapping[str, Sequence[Tap]], batches: Pairs, loss: Loss) -> dict[str, Tensor]:
    """Rise of the loss when a node alone is set to zero: brute force, one pass over the scoring data for each node.

    Args:
        taps: everywhere that the nodes of each layer are set to zero: at all of their readers, as in their removal.

    Raises:
        TargetError: a layer that is not used in the forward pass.
        InputError: no scoring data.
    """
    scored = list(pairs(batches, model))
    if not scored:
        raise InputError("no scoring data for the loss without a node: `batches` gave none")
    with evaluation_mode(model):
        whole = _mean_loss(model, scored, loss)
        result = {}
        for name, places in taps.items():
            rises = []
            for node in range(places[0].nodes):
                with _tapped(model, places, _silence(node)):
                    rises.append(_mean_loss(model, scored, loss) - whole)
            result[name] = torch.tensor(rises, dtype=torch.float64)
    return result


def _silence(node: int) -> See:
    def see(tap: Tap, value: Tensor, axis: int) -> Tensor:
        features = (tap.owner == node).nonzero().flatten()
        return value.index_fill(axis, features.to(value.device), 0)

    return see


def _mean_loss(model: nn.Module, batches: Sequence[Pair], loss: Loss) -> float:
    # In float64, because the rise is a small difference.
    total = sum(float(loss(in_float64(given.call(model)), target)) * given.rows for given, target in batches)
    return total / sum(given.rows for given, _ in batches)


@contextmanager
def _tapped(model: nn.Module, taps: Collection[Tap], see: See) -> Iterator[None]:
    """Pass the values at the taps to `see`, and use what it returns instead; every tap must see a value."""
    passed: set[Tap] = set()

    def watch(tap: Tap, value: Tensor, axis: int) -> Tensor:
        passed.add(tap)
        return see(tap, value, axis)

    with ExitStack() as stack:
        for tap in taps:
            module = layer_with_nodes(model, tap.layer)
            hook = module.register_forward_pre_hook if tap.side == "input" else module.register_forward_hook
            stack.callback(hook(_hook(tap, nodes_along(module), watch)).remove)
        yield
    for tap in taps:
        if tap not in passed:
            raise TargetError(f"layer {tap.layer!r} is not used in the forward pass: no nodes can be seen there")


def _hook(tap: Tap, axis: int, see: See) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor | None = None) -> Tensor:
        return see(tap, args[0] if output is None else output, axis)

    return hook
