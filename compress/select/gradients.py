"""Statistics of the loss's gradient over scoring data, one tensor for each parameter.

The parameters come as `leaves` that the forward pass computes with, which `effective` hands out, masked or not. The
model is scored in evaluation mode.

Of parameters that are sharded over processes, each process gets its part. All of them score the same batches, so that
the average over processes is the gradient that one process has.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from compress.batches import Pair, Pairs, pairs, part_of_target, tensors_of_target
from compress.errors import InputError, TargetError
from compress.evaluation_mode import evaluation_mode
from compress.inputs import Inputs
from compress.shards import (
    Part,
    Reducer,
    class_before_sharding,
    fsdp_modules,
    is_sharded,
    like,
    local,
    placed_like,
    reshard,
)
from compress.tasks import Loss

NamedParameter = tuple[nn.Module, str]

_NO_DATA = "no scoring data for gradients: `batches` gave none"


def each(model: nn.Module, leaves: Sequence[Tensor], batches: Pairs, loss: Loss) -> Iterator[Sequence[Tensor]]:
    """The gradient of each batch's mean loss; this process's part of it, where leaves are sharded.

    Raises:
        InputError: no batches, or others than in another process.
    """
    count = 0
    for given, target in _pairs(model, leaves, batches):
        count += 1
        yield _gradient(model, leaves, given, target, loss)
    if not count:
        raise InputError(_NO_DATA)


def mean(model: nn.Module, leaves: Sequence[Tensor], batches: Pairs, loss: Loss) -> list[Tensor]:
    """The gradient of the mean loss over all samples."""
    sums, samples = _zeros(leaves), 0
    for given, target in _pairs(model, leaves, batches):
        for total, slope in zip(sums, _gradient(model, leaves, given, target, loss), strict=True):
            total += slope * given.rows
        samples += given.rows
    return _divided(sums, samples, leaves)


def mean_abs(model: nn.Module, leaves: Sequence[Tensor], batches: Pairs, loss: Loss) -> list[Tensor]:
    """Mean over batches of |gradient of the batch's mean loss|; a batch counts as one, whatever its size."""
    return _mean_of(torch.abs, model, leaves, batches, loss)


def mean_square(model: nn.Module, leaves: Sequence[Tensor], batches: Pairs, loss: Loss) -> list[Tensor]:
    """Mean over batches of (gradient of the batch's mean loss)^2; a batch counts as one, whatever its size."""
    return _mean_of(torch.square, model, leaves, batches, loss)


def fisher(
    model: nn.Module, places: Sequence[NamedParameter], leaves: Sequence[Tensor], batches: Pairs, loss: Loss
) -> list[Tensor]:
    """Mean over samples of (gradient of the sample's loss)^2, the diagonal of the empirical Fisher information.

    Where all places are in Linear layers that are called once with one row per sample, a whole batch takes a single
    backward pass; otherwise each sample takes one.

    Args:
        places: the (module, name) of each leaf.
    """
    sums, samples = _zeros(leaves), 0
    for given, target in _pairs(model, leaves, batches):
        squares = _squares_of_linear(model, places, leaves, given, target, loss)
        if squares is None:
            squares = _squares_one_by_one(model, leaves, given, target, loss)
        for total, square in zip(sums, squares, strict=True):
            total += square
        samples += given.rows
    return _divided(sums, samples, leaves)


@contextmanager
def effective(places: Sequence[NamedParameter]) -> Iterator[list[Tensor]]:
    """The parameters as they act now, masked or not, as leaves that a gradient can be taken of.

    Inside, forward passes compute with these leaves, so that entries that get no gradient otherwise have one too: that
    of their present value.

    Raises:
        TargetError: a parameter that is neither plain nor soft-pruned.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_effective(module, name)) for module, name in places]


def _effective(module: nn.Module, name: str) -> AbstractContextManager[Tensor]:
    for hook in module._forward_pre_hooks.values():  # a SoftPruningMethod computes its own leaf
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name and hasattr(hook, "effective"):
            found: AbstractContextManager[Tensor] = hook.effective(module)
            return found
    parameter = module._parameters.get(name)
    if parameter is not None:
        return requiring_grad(parameter)
    raise TargetError(
        f"{name!r} of {type(module).__name__} is not a parameter, and is not being soft-pruned: fold its masks first, "
        "with torch.nn.utils.prune.remove"
    )


@contextmanager
def requiring_grad(parameter: nn.Parameter) -> Iterator[nn.Parameter]:
    """The parameter requires a gradient within, whether it is frozen or not."""
    before = parameter.requires_grad
    parameter.requires_grad_(True)
    try:
        yield parameter
    finally:
        parameter.requires_grad_(before)


def _pairs(model: nn.Module, leaves: Sequence[Tensor], batches: Pairs) -> Iterator[Pair]:
    """`pairs`; where leaves are sharded, which all processes must have alike."""
    reducer, found = Reducer.of(leaves), pairs(batches, model)
    if reducer.alone:
        yield from found
        return
    while True:
        batch = next(found, None)
        digest = 0 if batch is None else _digest(batch)
        minus_lowest, highest = reducer.largest(torch.tensor([-digest, digest])).tolist()
        if -minus_lowest != highest:
            raise InputError(
                "batches: the processes were given different ones, or different numbers of them; give all processes "
                "the same scoring data, without a DistributedSampler"
            )
        if batch is None:
            return
        yield batch


def _digest(batch: Pair) -> int:
    given, target = batch
    found = hashlib.sha256()
    for tensor in [*given.tensors, *tensors_of_target(target)]:
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return 1 + int.from_bytes(found.digest()[:7], "big")


def _gradient(model: nn.Module, leaves: Sequence[Tensor], given: Inputs, target: Any, loss: Loss) -> Sequence[Tensor]:
    """Zeros for a leaf that is not used in the forward pass."""
    with evaluation_mode(model, gradients=True):
        if any(map(is_sharded, leaves)):
            return _accumulated(model, leaves, lambda: loss(given.call(model), target))
        return torch.autograd.grad(loss(given.call(model), target), list(leaves), materialize_grads=True)


def _accumulated(model: nn.Module, leaves: Sequence[Tensor], compute: Callable[[], Tensor]) -> list[Tensor]:
    """This process's part of each gradient. `fully_shard` knows no gradient but the one in `grad`, which is put back.

    Whole weights are put together for the passes, and only a backward pass adds up and distributes their gradients.
    """
    sharding = fsdp_modules(model)
    reshard(sharding)
    holders = list({id(one): one for one in [*model.parameters(), *leaves]}.values())
    before = [holder.grad for holder in holders]
    for module in sharding:
        module.set_requires_gradient_sync(True, recurse=False)
    try:
        for holder in holders:
            holder.grad = None
        compute().backward()  # type: ignore[no-untyped-call]
        reshard(sharding)
        found = [leaf.grad for leaf in leaves]
        return [
            torch.zeros_like(local(leaf)) if grad is None else local(placed_like(grad, leaf)).detach()
            for leaf, grad in zip(leaves, found, strict=True)
        ]
    finally:
        for holder, grad in zip(holders, before, strict=True):
            holder.grad = grad


def _mean_of(
    term: Callable[[Tensor], Tensor], model: nn.Module, leaves: Sequence[Tensor], batches: Pairs, loss: Loss
) -> list[Tensor]:
    sums, count = _zeros(leaves), 0
    for slopes in each(model, leaves, batches, loss):
        for total, slope in zip(sums, slopes, strict=True):
            total += term(slope)
        count += 1
    return _divided(sums, count, leaves)


def _zeros(leaves: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(local(leaf)) for leaf in leaves]


def _divided(sums: Sequence[Tensor], count: int, leaves: Sequence[Tensor]) -> list[Tensor]:
    if not count:
        raise InputError(_NO_DATA)
    return [like(total.detach() / count, leaf) for total, leaf in zip(sums, leaves, strict=True)]


def _squares_one_by_one(
    model: nn.Module, leaves: Sequence[Tensor], given: Inputs, target: Any, loss: Loss
) -> list[Tensor]:
    sums = _zeros(leaves)
    for index in range(given.rows):
        one = slice(index, index + 1)
        slopes = _gradient(model, leaves, given.part(one), part_of_target(target, given, one), loss)
        for total, slope in zip(sums, slopes, strict=True):
            total += slope.square()
    return sums


def _squares_of_linear(
    model: nn.Module,
    places: Sequence[NamedParameter],
    leaves: Sequence[Tensor],
    given: Inputs,
    target: Any,
    loss: Loss,
) -> list[Tensor] | None:
    """Sums over the batch of squared gradients; None where that is not possible for a layer.

    A sample's gradient is the outer product of the layer's input x and the slope d at its output, and so
    sum (d x^T)^2 = (d^2)^T (x^2), entry by entry.
    """
    layers = dict.fromkeys(module for module, _ in places)
    if not all(class_before_sharding(module) is nn.Linear for module in layers):
        return None
    calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {module: [] for module in layers}
    whole = [True]  # whether layers compute with all of their weights

    def watch(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        whole[0] &= not any(map(is_sharded, (module.weight, args[0], output)))  # as in tensor parallelism
        # A probe rather than the output itself, which an in-place activation would overwrite.
        probe = torch.zeros_like(output, requires_grad=True)
        calls[module].append((args[0].detach().square(), probe))
        return output + probe

    with evaluation_mode(model, gradients=True), ExitStack() as stack:
        for module in layers:
            stack.callback(module.register_forward_hook(watch).remove)
        total = loss(given.call(model), target) * given.rows
        if not whole[0] or any(len(call) != 1 or call[0][1].shape[:-1] != (given.rows,) for call in calls.values()):
            return None
        probes = [call[0][1] for call in calls.values()]
        slopes = torch.autograd.grad(total, probes, materialize_grads=True)
    squares = {module: slope.square() for module, slope in zip(layers, slopes, strict=True)}
    found = []
    for (module, name), leaf in zip(places, leaves, strict=True):
        factors = [squares[module], calls[module][0][0]] if name == "weight" else [squares[module]]
        if is_sharded(leaf):
            factors = [each[:, index] for each, index in zip(factors, Part.of(leaf).indices, strict=True)]
        found.append(factors[0].T @ factors[1] if name == "weight" else factors[0].sum(0))
    return found
