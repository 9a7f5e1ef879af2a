"""Scale queries to compensate for attention whose code takes the scale from the size of a head.

Code such as `(q @ k.T) / math.sqrt(q.shape[-1])` divides by the square root of m if m of the n nodes of a head are
left. The scores do not change if the queries are multiplied by sqrt(m / n). The layer that computes them is linear, so
its weight and bias are multiplied.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from compress.graph.coupling import Coupling, Couplings, Member
from compress.graph.dimensions import Dim, Factor, leaves
from compress.graph.flow import arguments_of
from compress.graph.names import name_of

_NORMS = ("norm", "mean", "weights")
"""Numbers of nodes that are summed, but not by an attention."""


def scaled_by_size(known: Couplings) -> bool:
    """Whether torch's attention is called without a scale, which then depends on the size."""
    return any(
        "scaled_dot_product" in name_of(node) and arguments_of(node).get("scale") is None
        for node in known.trace.graph.nodes
        if node.op == "call_function"
    )


def with_rescaled_queries(
    known: Couplings, left: Mapping[Coupling, Tensor], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors with other queries, and the modules around the layers that compute them; none if no head shrinks.

    Args:
        left: the nodes of each coupling that are left.
    """
    changed: dict[str, Tensor] = {}
    normed = {factor for number, dims in known.numbers.items() if number.kind in _NORMS for factor in _factors(dims)}
    for coupling, nodes in left.items():
        if coupling.summed and coupling.factor not in normed:
            for tensor, dim, positions in _queries(coupling, nodes):
                factors = tensors[tensor].new_ones(tensors[tensor].shape[dim])
                factors[positions] = math.sqrt(len(nodes) / coupling.size)
                shape = [-1 if place == dim else 1 for place in range(tensors[tensor].ndim)]
                scaled = changed.get(tensor, tensors[tensor]).detach() * factors.reshape(shape)
                changed |= dict.fromkeys(known.names[tensor], scaled)
    layers = {name.rpartition(".")[0] for name in changed}
    return {**tensors, **changed}, {layer.rpartition(".")[0] for layer in layers}


def _factors(dims: Iterable[Dim]) -> Iterator[Factor]:
    for dim in dims:
        yield from leaves(dim)


def _queries(coupling: Coupling, nodes: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """(tensor, dimension, positions): where the first writer of the nodes has them.

    A layer that computes queries, keys and values at once has the queries first; it is seen by the values, which
    another layer reads.
    """
    writers = [member for member in coupling.members if member.role == "writes"]
    first = [member for member in writers if _part(member) == _part(writers[0])]
    parts = 1
    if len(first) == len(writers):
        parts = 3 if any(member.role == "reads" for member in coupling.members) else 2
    for member in first:
        positions = member.index(nodes)
        yield member.tensor, member.dim, positions[: len(positions) // parts]


def _part(member: Member) -> tuple[str, int]:
    return member.tensor.rpartition(".")[0], member.offset
