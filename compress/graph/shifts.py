"""Constants that are added to all nodes of a stream, and do not matter because only layer norms over the nodes read it.

The token mixing of an MLP-Mixer has biases over positions, which it adds to the stream at every channel, including dead
ones. At a dead channel, the sum of what it adds is the same for every input. Subtracting it from the bias removes it
from all channels. A layer norm over the channels returns the same values, and finds zeros at the dead ones.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import fx

from compress.graph.dimensions import BATCH, Factor, keep, size_of, whole
from compress.graph.flow import Flow, Shift, arguments_of, at, layer_at
from compress.graph.names import name_of

_PASSING = {
    *("permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "mT", "contiguous", "clone", "detach", "alias"),
    *("to", "_to_copy", "dropout", "unsqueeze", "squeeze"),
}
"""Operators that pass on the values of their first argument."""


def without_shifts(flow: Flow, source: fx.Node, factor: Factor) -> None:
    """Record that `source` vanishes along `factor` once its layers' constants are subtracted from their biases."""
    found = _shifts(flow, source, factor)
    if found:
        flow.shifts |= found
        flow.vanishes(source, [*flow.zeros(source), factor])


def checked(flow: Flow) -> Iterator[Shift]:
    """The shifts, at the end of the walk. Nodes are kept if anything except a layer norm would notice a shift."""
    for node, shift in flow.shifts.items():
        factor, *others = whole((shift.factor,))
        reader = _other_reader(flow, node, factor)
        if others or reader is not None:
            what = at(reader) if reader is not None else "something"
            keep((factor, *others), f"{what} reads what {shift.layer!r} adds to nodes whose weights are zero")
        yield replace(shift, factor=factor)


def _shifts(flow: Flow, node: fx.Node, factor: Factor) -> dict[fx.Node, Shift] | None:
    """The layers whose biases make `node` differ from zero along `factor`; None if anything else does."""
    if factor in flow.zeros(node):
        return {}
    if node.op != "call_function":
        return None
    name, operands = name_of(node), [given for given in node.args[:2] if isinstance(given, fx.Node)]
    if name in _PASSING:
        return _shifts(flow, operands[0], factor)
    if name == "add" and len(operands) == 2 and arguments_of(node)["alpha"] == 1:
        one, other = (_shifts(flow, operand, factor) for operand in operands)
        return None if one is None or other is None else one | other
    shift = _of_bias(flow, node, factor)
    return None if shift is None else {node: shift}


def _of_bias(flow: Flow, node: fx.Node, factor: Factor) -> Shift | None:
    """The shift of a linear layer or convolution over the positions."""
    bias, layer = arguments_of(node).get("bias"), layer_at(node)
    if not isinstance(bias, fx.Node) or flow.tensors.get(bias) != f"{layer}.bias" or len(bias.users) > 1:
        return None
    batch, *dims = map(whole, flow.dims(node))
    places = [place for place, dim in enumerate(dims, 1) if dim == (factor,)]
    others = [dim for dim in dims if dim != (factor,)]
    if size_of(batch) % BATCH or len(places) != 1 or others != [whole(flow.dims(bias)[0])]:
        return None
    return Shift(layer, places[0], factor) if _is_fixed(flow, node, factor) else None


def _is_fixed(flow: Flow, node: fx.Node, factor: Factor) -> bool:
    """Whether `node` has the same value at all dead nodes, whatever the input is."""
    seen, pending = {node}, [node]
    while pending:
        node = pending.pop()
        if factor in flow.zeros(node):
            continue
        if node.op != "call_function" and (node.op != "get_attr" or factor in flow.factors(node)):
            return False
        new = [source for source in node.all_input_nodes if source not in seen]
        seen.update(new)
        pending += new
    return True


def _other_reader(flow: Flow, node: fx.Node, factor: Factor) -> fx.Node | None:
    """An operator after `node` that does not only pass values on, and is not a layer norm over the nodes."""
    seen, pending = {node}, [node]
    while pending:
        node = pending.pop()
        for user in node.users:
            if name_of(user) in _PASSING or (name_of(user) == "add" and arguments_of(user)["alpha"] == 1):
                pending += [] if user in seen else [user]
                seen.add(user)
            elif name_of(user) != "layer_norm" or not _is_over(flow, user, node, factor):
                return user
    return None


def _is_over(flow: Flow, norm: fx.Node, node: fx.Node, factor: Factor) -> bool:
    """Whether `norm` takes the mean of `node` over the nodes of `factor`, and nothing else."""
    arguments = arguments_of(norm)
    return (
        arguments["input"] is node
        and len(arguments["normalized_shape"]) == 1
        and whole(flow.dims(node)[-1]) == (factor,)
    )
