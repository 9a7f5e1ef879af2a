"""`compensate`: adjust the kept weights, so that the network computes without the pruned ones what it did with them.

Each layer that reads pruned nodes or has pruned weights is fitted by least squares to what it computes in the dense
network, from the inputs that it gets in the pruned one: layer by layer, in the order of the forward pass. Norms take
the statistics of what reaches them then.
"""

from collections.abc import Collection, Hashable, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.trace import Trace, tensors_of
from compress.inputs import Inputs
from compress.select.compensation.fit import Fit, in_float
from compress.select.compensation.lockstep import Ends, Meeting, Normalizes, Reads, meetings
from compress.select.compensation.readers import OwnTensors

COMPENSATION_SAMPLES = 1000
"""Training samples on which weights are fitted, at most."""

ROWS = 20_000
"""Rows of inputs, at most, that a layer is fitted on, unless it has many entries."""

ROWS_PER_ENTRY = 8
"""Rows for each entry of a row of the weight."""


@torch.no_grad()
def compensate(
    model: nn.Module,
    keep: Mapping[str, Tensor],
    calls: Sequence[Inputs],
    traces: MutableMapping[Hashable, Trace],
    *,
    branches: Collection[str] = (),
) -> float:
    """Adjust kept weights, biases and the statistics of norms, in place; pruned entries do not change.

    A layer whose weight is computed, tied to another or used several times keeps it.

    Args:
        keep: masks of the parameters' shapes by name, True = keep.
        calls: the batches to fit on.
        traces: of the network, by the signatures of calls; missing ones are added.
        branches: names of the residual branches that are removed. All layers behind the first of them are fitted; the
            last layers of other branches also give what is missing in the stream.

    Returns:
        The error of the network's outputs on the batches, relative to how much the outputs vary.

    Raises:
        InputError: there is no batch, batches take different ways through the network, or values are NaN or infinite.
        UnsupportedModelError: the network cannot be traced.
    """
    tensors, error = OwnTensors(tensors_of(model), keep), 0.0
    for meeting in meetings(model, tensors, calls, traces, branches=branches):
        stop = meeting.stops[0]
        if isinstance(stop, Normalizes):
            _take_statistics(meeting, stop)
        elif isinstance(stop, Ends):
            error = meeting.error()
        elif isinstance(stop, Reads) and _is_to_fit(meeting, stop):
            _refit(meeting, stop)
    own = tensors_of(model)
    for name, made in tensors.of.items():
        if not torch.equal(made.dense, made.pruned):
            own[name].copy_(torch.where(made.marks, made.pruned, made.dense))
    return error


def _is_to_fit(meeting: Meeting, stop: Reads) -> bool:
    """Not if nothing is pruned, or if all rows that are left give what they gave: a fit would only round them."""
    keep = stop.reader.product.matrix(stop.weight.marks)
    whole = bool((keep.any(2) == keep.all(2)).all())
    as_it_was = whole and all(isinstance(one, Reads) and one.as_dense for one in meeting.stops)
    return (stop.differs or not bool(keep.all())) and not as_it_was


def _refit(meeting: Meeting, stop: Reads) -> None:
    """Fit the weight and the bias of the reader that all batches have come to."""
    weight, bias = stop.weight, stop.reader.bias
    if not bool(weight.marks.any()):
        return
    product = stop.reader.product.of_used(weight.marks)
    pruned, keep = in_float(product.matrix(weight.pruned)), product.matrix(weight.marks)
    fit = Fit(keep, intercept=bias is not None)
    for rows, wanted in meeting.rows(product, max(ROWS, ROWS_PER_ENTRY * keep.shape[-1])):
        rows = in_float(rows)
        missing = torch.baddbmm(in_float(wanted), rows, pruned.mT, alpha=-1)
        fit.add(rows, missing if bias is None else missing.sub_(in_float(bias.pruned).reshape(len(keep), 1, -1)))
    change, constant = fit.change()
    if not bool(change.isfinite().all()):
        raise InputError(
            "batches: an input of a layer is NaN or infinite, so its weights cannot be fitted; remove such samples"
        )
    weight.pruned.add_(product.weight(change).to(weight.pruned))
    if bias is not None and constant is not None:
        bias.pruned.add_(constant.flatten().to(bias.pruned) * bias.marks)


def _take_statistics(meeting: Meeting, stop: Normalizes) -> None:
    """Change the running statistics by what the batches show of the change, which few samples show well enough."""
    (mean, variance), (new_mean, new_variance) = (meeting.statistics(side) for side in (0, 1))
    smallest = torch.finfo(torch.float32).tiny
    stop.mean.pruned.add_((new_mean - mean).to(stop.mean.pruned) * stop.mean.marks)
    ratio = new_variance.clamp_min(smallest) / variance.clamp_min(smallest)
    stop.variance.pruned.mul_(ratio.to(stop.variance.pruned))
