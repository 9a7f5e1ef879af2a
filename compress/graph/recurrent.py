"""Rules of recurrent layers and cells, and of sequences of several lengths that are packed into one tensor."""

from collections.abc import Sequence
from typing import Any

from torch import fx

from compress.graph.contractions import count_positions
from compress.graph.dimensions import Dim, keep, regroup, size_of, total
from compress.graph.flow import EXTENT, GATES, Flow, Rule, Value, at, fresh_value


def recurrent(gates: int) -> Rule:
    def rule(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
        """Layers that read their own last state: rows [gates * nodes] in weights and biases, columns in weight_hh."""
        source, states = arguments["data" if "data" in arguments else "input"], arguments["hx"]
        hidden = [flow.dims(state) for state in (states if isinstance(states, list | tuple) else [states])]
        ways, each = 2 if arguments["bidirectional"] else 1, 4 if arguments["has_biases"] else 2
        if len(arguments["params"]) != arguments["num_layers"] * ways * each:
            return "has projections, which have no rule"
        width, reads = hidden[0][-1], flow.dims(source)[-1]
        keep([dims[:-1] for dims in hidden], EXTENT)
        keep(flow.dims(source)[:-1], f"{at(node)} processes its steps in order")
        for dims in hidden[1:]:
            flow.align(node, width, dims[-1])
        for start in range(0, len(arguments["params"]), each):
            if start and start % (ways * each) == 0:
                reads = total([width] * ways)
            own = arguments["params"][start : start + each]
            if not _gated(flow, node, own, gates, reads, width, flow.dims(source)[:-1]):
                return "has gates whose borders do not meet"
        _note_zeros(flow, node, arguments["params"], states)
        result = (*flow.dims(source)[:-1], total([width] * ways))
        return [result, *(tuple(dims) for dims in hidden)]

    return rule


def cell(gates: int) -> Rule:
    def rule(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
        """One step of one layer: the next state, and for an LSTM the next contents of its cells."""
        source, states = flow.dims(arguments["input"]), arguments["hx"]
        hidden = [flow.dims(state) for state in (states if isinstance(states, list | tuple) else [states])]
        own = [arguments[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if arguments[name] is not None]
        width = hidden[0][-1]
        for dims in hidden:
            flow.align(node, width, dims[-1])
            for one, other in zip(source[:-1], dims[:-1], strict=True):
                flow.align(node, one or other, other or one)
        if not _gated(flow, node, own, gates, source[-1], width, source[:-1]):
            return "has gates whose borders do not meet"
        _note_zeros(flow, node, own, states)
        results = [(*source[:-1], width) for _ in hidden]
        return results if isinstance(node.meta["val"], list | tuple) else results[0]

    return rule


def _gated(
    flow: Flow, node: fx.Node, own: Sequence[fx.Node], gates: int, reads: Dim, width: Dim, steps: Sequence[Dim]
) -> bool:
    """Tensors of one layer: weights [gates * nodes, reads] and [gates * nodes, nodes], then biases."""
    for tensor in own:
        pieces = regroup([flow.dims(tensor)[0]], [gates, size_of(width)])
        if pieces is None:
            return False
        keep(pieces[0], GATES)
        flow.align(node, width, pieces[1])
    for tensor, dim in zip(own, (reads, width), strict=False):
        flow.align(node, flow.dims(tensor)[1], dim)
        if tensor in flow.tensors:
            flow.reads.add((flow.tensors[tensor], 1))
            count_positions(flow, tensor, steps)
        else:
            flow.contract(dim, node, [tensor])
    return True


def _note_zeros(flow: Flow, node: fx.Node, own: Sequence[fx.Node], states: Any) -> None:
    """Without weights, a state that begins at zero remains zero, whatever the gates are."""
    several = states if isinstance(states, list | tuple) else [states]
    flow.vanishes(node, set.intersection(*(flow.zeros(tensor) for tensor in (*own, *several))))


def pack(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Sequences [batch, steps, nodes] as [steps of all, nodes], and how many sequences have each step."""
    dims = flow.dims(arguments["input"])
    keep((dims[:2], flow.dims(arguments["lengths"])), EXTENT)
    rows, counts = node.meta["val"]
    new, sizes = fresh_value(rows, EXTENT), fresh_value(counts, EXTENT)
    assert isinstance(new, tuple)
    flow.vanishes(node, flow.zeros(arguments["input"]))
    return [(new[0], *dims[2:]), sizes]


def unpack(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """The inverse of packing; steps after a sequence's end are `padding_value`."""
    dims = flow.dims(arguments["data"])
    keep((dims[0], flow.dims(arguments["batch_sizes"])), EXTENT)
    padded, lengths = node.meta["val"]
    new, sizes = fresh_value(padded, EXTENT), fresh_value(lengths, EXTENT)
    assert isinstance(new, tuple)
    if arguments["padding_value"] == 0:
        flow.vanishes(node, flow.zeros(arguments["data"]))
    return [(*new[:2], *dims[1:]), sizes]
