"""`recalibrate`: estimate the statistics of batch norms again, for what reaches them after layers were cut."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from compress.batches import pairs
from compress.errors import InputError
from compress.graph.network import require_parameters
from compress.inputs import Inputs
from compress.options import check
from compress.select.scoring import BatchSource, Scoring, on_data, require_source
from compress.train import random_state

SAMPLES = 2000
"""More change the accuracy by less than another draw of as many does (docs/decisions.md)."""


def recalibrate(model: nn.Module, batches: BatchSource, *, samples: int = SAMPLES) -> None:
    """Replace the running statistics of all norms of `model` by their means over training samples, without training.

    Norms are batch norms, synchronized ones included, and instance norms that track statistics. Each averages the mean
    and variance of every batch, weighted by its samples. All other modules are in evaluation mode, so
    dropout is off; modes and random numbers are restored afterwards. Frozen norms keep their statistics: those with a
    momentum of 0, and those in evaluation mode within a network in training mode.

    Call it on the pruned network before `slim`, so that both have the same statistics.

    Args:
        batches: training samples in random order: a loader, a list, or a function from a batch size to one of these;
            targets are ignored.
        samples: number of samples to use, at least 2; all of them if there are fewer.

    Raises:
        InputError: there is no norm with statistics, no batch with two samples, or an input or a statistic is NaN or
            infinite. The statistics do not change then.
    """
    require_parameters(model)
    require_source(batches, None)
    check("samples", samples, int, ge=2)
    norms = calibrated(model)
    if not norms:
        raise InputError("recalibrate: the network has no norm with running statistics that is not frozen")
    before = {norm: [tensor.clone() for tensor in norm.buffers(recurse=False)] for norm in norms.values()}
    state = random_state.state_dict()
    try:
        with _only_training(model, list(norms.values())):
            _estimate(model, list(norms.values()), batches, samples)
        _require_finite(norms)
    except BaseException:
        for norm, tensors in before.items():
            for tensor, old in zip(norm.buffers(recurse=False), tensors, strict=True):
                tensor.copy_(old)
        raise
    finally:
        random_state.load_state_dict(state)


def calibrated(model: nn.Module) -> dict[str, _NormBase]:
    """The norms with running statistics that are not frozen, by name."""
    return {
        name: norm
        for name, norm in model.named_modules()
        if isinstance(norm, _NormBase)
        and isinstance(norm.running_mean, Tensor)
        and norm.momentum != 0
        and (norm.training or not model.training)
    }


@contextmanager
def _only_training(model: nn.Module, norms: list[_NormBase]) -> Iterator[None]:
    """These norms in training mode, all other modules in evaluation mode, and no gradients."""
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    try:
        for module in modes:
            module.training = module in momenta
        for norm in norms:
            if isinstance(norm, nn.SyncBatchNorm):  # all processes have the same samples, and it refuses CPUs
                norm.forward = partial(_BatchNorm.forward, norm)  # type: ignore[method-assign]
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, momentum in momenta.items():
            norm.momentum = momentum
            vars(norm).pop("forward", None)


def _estimate(model: nn.Module, norms: list[_NormBase], batches: BatchSource, samples: int) -> None:
    """One forward pass for every batch; the momentum is the batch's share of the samples so far."""
    for norm in norms:
        norm.reset_running_stats()
    source = Scoring(model, torch.Generator(), batches).batches("recalibrate", samples)
    seen = 0
    for number, (given, _) in enumerate(pairs(source, model), 1):
        if given.rows == 1:  # it has no variance; mostly it is what is left of the data
            continue
        _require_numbers(given, number)
        seen += given.rows
        for norm in norms:
            norm.momentum = given.rows / seen
        with on_data("recalibrate"):
            given.call(model)
    if not seen:
        raise InputError("recalibrate: batches: there is no batch with two samples, and one sample has no variance")


def _require_numbers(given: Inputs, number: int) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in given.tensors):
        raise InputError(f"recalibrate: batches: batch {number} holds NaN or infinite values; remove such samples")


def _require_finite(norms: dict[str, _NormBase]) -> None:
    for name, norm in norms.items():
        for which in ("running_mean", "running_var"):
            if not getattr(norm, which).isfinite().all():
                raise InputError(
                    f"recalibrate: {name}.{which} became NaN or infinite; the statistics are as before: look at the "
                    "weights of the layers before it"
                )
