"""What the pruned network lacks where residual branches are removed, and which layers can make up for it.

The last layer of another branch writes into the same stream. If nothing but a scale lies between the two, such as a
norm with running statistics, it can add what a removed branch no longer does.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from compress.graph.branches import Branch, residual_branches, without
from compress.graph.names import name_of
from compress.graph.trace import Trace

_SCALES = {
    *("mul", "div", "batch_norm", "dropout", "view", "reshape", "permute", "transpose", "contiguous", "clone"),
    *("flatten", "unflatten", "squeeze", "unsqueeze", "slice", "roll"),
}
"""Operators that change a value entry by entry by a factor, or put entries elsewhere."""

Way = tuple[fx.Node, ...]


@dataclass(frozen=True)
class Missing:
    """The removed branches in a trace.

    inside: the operators that only they need. joins: the sums that joined them, and the streams that take their place.
    differ: the operators behind them. ways: of each other branch behind a removed one its stream, and the operators
    from its last layer with weights to its end.
    """

    inside: Collection[fx.Node] = ()
    joins: Mapping[fx.Node, fx.Node] = field(default_factory=dict)
    differ: Collection[fx.Node] = ()
    ways: Collection[tuple[fx.Node, Way]] = ()

    @classmethod
    def of(cls, model: nn.Module, traced: Trace, names: Collection[str]) -> "Missing":
        found = residual_branches(model, traced).found
        nodes = {node.name: node for node in traced.graph.nodes}
        removed = [branch for branch in found if branch.name in names]
        left = {node.name for node in without(traced, removed).graph.nodes}
        joins = {nodes[branch.join]: _operand(nodes, branch, branch.stream) for branch in removed}
        gone = {node for node in traced.graph.nodes if node.name not in left and node.op == "call_function"}
        differ: set[fx.Node] = set()
        for node in traced.graph.nodes:
            if node in joins or not differ.isdisjoint(node.all_input_nodes):
                differ.add(node)
        ways = [
            (_operand(nodes, branch, branch.stream), _way(_operand(nodes, branch, 1 - branch.stream)))
            for branch in found
            if branch.join in left and nodes[branch.join] in differ
        ]
        return cls(gone - set(joins), {join: joins[join] for join in joins if join in gone}, differ, ways)


def _operand(nodes: Mapping[str, fx.Node], branch: Branch, place: int) -> fx.Node:
    found = nodes[branch.join].args[place]
    assert isinstance(found, fx.Node)
    return found


def _way(end: fx.Node) -> Way:
    """From the last operator that is not in `_SCALES` to the end, where nothing else uses the values between."""
    way = [end]
    while name_of(way[0]) in _SCALES and len(way[0].users) == 1:
        sources = [source for source in way[0].all_input_nodes if source.op == "call_function"]
        if len(sources) != 1:
            break
        way.insert(0, sources[0])
    return tuple(way)


def before_scales(through: Callable[[Tensor], Tensor], start: Tensor, gap: Tensor) -> Tensor:
    """What added to `start` changes `through(start)` by `gap`, where `through` only scales and moves entries.

    Zero where a scale is zero.
    """
    with torch.enable_grad():
        own = start.detach().requires_grad_()
        end = through(own.clone())  # operators in place write into it
        (moved,) = torch.autograd.grad(end, own, gap.expand_as(end).to(end), retain_graph=True)
        (scale,) = torch.autograd.grad(end, own, torch.ones_like(end))
    squares = scale.square()
    return torch.where(squares > 0, moved / squares.clamp_min(torch.finfo(squares.dtype).tiny), 0.0)
