"""The batches that weights are fitted on: as many samples as the values of a layer leave room for."""

from collections.abc import Hashable, Iterator, MutableMapping
from itertools import pairwise

from torch import Tensor, nn

from compress.batches import Pairs, pairs
from compress.errors import InputError
from compress.graph.dimensions import BATCH
from compress.graph.trace import Trace, trace
from compress.inputs import Inputs

NUMBERS = 2**26
"""What a layer gives for all samples together, at most; some such values are held at once, in both networks."""

PART = 2**22
"""What a layer gives in one call on a processor, at most, unless it gives more for two samples.

The allocator returns the memory of larger tensors to the system each time. Getting it back took a quarter of the
forward pass of a ResNet-50 with 16 samples.
"""


def calls_of(model: nn.Module, batches: Pairs, traces: MutableMapping[Hashable, Trace]) -> list[Inputs]:
    """The first batches, as many as there is room for; at least one sample.

    Args:
        traces: of the network, by the signatures of calls; that of the first batch is added.

    Raises:
        InputError, UnsupportedModelError: the network does not run on them, or cannot be traced.
    """
    return list(_fitting(model, batches, traces))


def _fitting(model: nn.Module, batches: Pairs, traces: MutableMapping[Hashable, Trace]) -> Iterator[Inputs]:
    left, largest = None, 1
    for given, _ in pairs(batches, model):
        if left is None:
            key = given.signature()
            traces[key] = traces.get(key) or _traced(model, given)
            largest = _largest(traces[key])
            left = max(1, NUMBERS // largest)
        yield from _parts(given if given.rows <= left or given.whole else given.part(slice(left)), largest)
        left -= given.rows
        if left <= 0:
            return


def _parts(given: Inputs, largest: int) -> Iterator[Inputs]:
    """A call in equal parts of at least two samples. A value has `largest` numbers of one sample."""
    divides = given.tensors[0].device.type == "cpu" and not given.whole
    parts = max(1, min(-(-given.rows * largest // PART), given.rows // 2)) if divides else 1
    if parts == 1:
        yield given
        return
    for begin, end in pairwise(given.rows * part // parts for part in range(parts + 1)):
        yield given.part(slice(begin, end))


def _traced(model: nn.Module, given: Inputs) -> Trace:
    try:
        return trace(model, given)
    except InputError as error:
        raise InputError(f"batches: {str(error).replace('the example', 'a batch')}") from error


def _largest(traced: Trace) -> int:
    """Numbers of the largest value of one sample."""
    values = (node.meta.get("val") for node in traced.graph.nodes if node.op == "call_function")
    return max((one.numel() // BATCH for one in values if isinstance(one, Tensor)), default=1) or 1
