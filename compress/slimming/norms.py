"""Norms that go on dividing by the number of nodes that there were before the cut.

Of n nodes, m are left, and the others were zero. With sums over the m that are left, the layer norm over all n has

    mean = sum(x) / n,    variance = sum(x**2) / n - mean**2

and the root-mean-square norm has sum(x**2) / n = (m / n) * mean_m(x**2), so that

    gain * x / sqrt(sum(x**2) / n + eps) = gain * sqrt(n / m) * x / sqrt(mean_m(x**2) + eps * n / m),

which is the plain norm over m nodes with another gain and another epsilon. The difference in the variance loses no
digits: (n - m) zeros among the n numbers make the variance at least mean**2 * (n - m) / m.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from compress.graph.flow import arguments_of
from compress.graph.norms import centre, epsilon_of, norm_kind

_ATEN = torch.ops.aten
_MEANS = {_ATEN.layer_norm, _ATEN.rms_norm, _ATEN.mean}
_HALF = (torch.float16, torch.bfloat16)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, count: int) -> Tensor:
    """Layer normalization of x [..., m], the nodes left of `count`; weight and bias [m]."""
    mean = x.sum(-1, keepdim=True) * (1 / count)
    variance = (x * x).sum(-1, keepdim=True) * (1 / count) - mean * mean
    result = (x - mean) * (variance + eps).rsqrt()
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


class CountedLayerNorm(nn.LayerNorm):
    """Layer normalization over the nodes that are left of `count`, the others having been zero.

    Args:
        norm: whose weight, bias, epsilon and mode it takes over.
        count: number of nodes before the cut.
        left: number of nodes after it.
        axis: the dimension of the input that holds the nodes; 0 for the last.
    """

    def __init__(self, norm: nn.Module, count: int, left: int, axis: int) -> None:
        eps = getattr(norm, epsilon_of(norm) or "eps")
        super().__init__((left,), eps, elementwise_affine=False)
        self.count, self.axis = count, axis or -1
        self.elementwise_affine = getattr(norm, "weight", None) is not None
        self.weight, self.bias = getattr(norm, "weight", None), getattr(norm, "bias", None)  # type: ignore[assignment]
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        wide = input.float() if input.dtype in _HALF else input
        result = layer_norm(wide.movedim(self.axis, -1), self.weight, self.bias, self.eps, self.count)
        # In single precision under autocast, as torch's own: the weights are then of another dtype than the input.
        dtype = input.dtype if self.weight is None else torch.promote_types(input.dtype, self.weight.dtype)
        return result.movedim(-1, self.axis).to(dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, count={self.count}"


def nodes_of(module: nn.Module | None) -> int | None:
    """Number of nodes that a norm takes the mean over; None for other modules, and where it counts others already."""
    if module is None or norm_kind(module) is None or isinstance(module, CountedLayerNorm):
        return None
    shape: Any = getattr(module, "normalized_shape", None) or module.get_parameter("weight").shape
    if isinstance(shape, int):  # a norm of somebody's own
        return shape
    return shape[0] if len(shape) == 1 else None


def count_on(model: nn.Module, name: str, axis: int, before: int, after: int) -> None:
    """Let the norm `name`, of `after` nodes from now on, go on counting `before`; `rescale` adds what weights need."""
    norm = model.get_submodule(name)
    if norm_kind(norm) == "rms":
        epsilon = epsilon_of(norm)
        assert epsilon is not None
        old = getattr(norm, epsilon)
        smallest = torch.finfo(norm.get_parameter("weight").dtype).eps  # what torch takes for None
        setattr(norm, epsilon, (smallest if old is None else old) * before / after)
        return
    counted = CountedLayerNorm(norm, before, after, axis)
    for module in list(model.modules()):
        for child, found in module._modules.items():  # named_children leaves out a second name
            if found is norm:
                setattr(module, child, counted)


@torch.no_grad()
def rescale(model: nn.Module, norms: Iterable[tuple[str, int, int]]) -> None:
    """Multiply the gains of root-mean-square norms, of which (name, nodes before, after) are given, as they need."""
    for name, before, after in norms:
        norm = model.get_submodule(name)
        if norm_kind(norm) == "rms":
            weight, offset = norm.get_parameter("weight"), _offset(norm)
            weight.add_(offset).mul_(math.sqrt(before / after)).sub_(offset)


def _offset(norm: nn.Module) -> int:
    """What a norm adds to its weight to have its gain, as Gemma's adds 1: found by trying."""
    given = torch.ones_like(norm.get_parameter("weight"))[None]
    with suppress(Exception):  # one that does not take rows; the proof will tell
        zero, one = (functional_call(norm, {"weight": factor * given[0]}, (given,)).mean() for factor in (0, 1))
        return round(float(zero / (one - zero)))
    return 0


def means_of(module: nn.Module) -> dict[str, fx.Node]:
    """The operators of a graph that take a mean, by name; none of another module."""
    nodes = module.graph.nodes if isinstance(module, fx.GraphModule) else ()
    return {node.name: node for node in nodes if getattr(node.target, "overloadpacket", None) in _MEANS}


def count_on_in_graph(module: fx.GraphModule, means: Iterable[tuple[str, int, int]]) -> None:
    """As `count_on`, of operators (name, nodes before, after) of a graph, in plain operators; weights need nothing."""
    known = means_of(module)
    for name, before, after in means:
        node, arguments = known[name], arguments_of(known[name])
        if node.target is _ATEN.layer_norm.default:
            _replace(node, _layer_norm(node, arguments, before))
        elif node.target is _ATEN.rms_norm.default:
            smallest = torch.finfo(node.meta["val"].dtype).eps
            eps = (smallest if arguments["eps"] is None else arguments["eps"]) * before / after
            node.args, node.kwargs = (arguments["input"], [after], arguments["weight"], eps), {}
            _scale(node, math.sqrt(before / after))
        elif middle := centre(node):
            _scale(node, after / before, middle)
        else:
            _scale(node, after / before)


def _layer_norm(node: fx.Node, arguments: dict[str, Any], count: int) -> fx.Node:
    dtype = node.meta["val"].dtype
    with node.graph.inserting_before(node):
        operands = [arguments[name] and fx.Proxy(arguments[name]) for name in ("input", "weight", "bias")]
        x, weight, bias = cast(Sequence[Any], operands)
        wide = x.float() if dtype in _HALF else x
        result: Any = layer_norm(wide, weight, bias, arguments["eps"], count)
        return cast(fx.Proxy, result.to(dtype) if dtype in _HALF else result).node


def _scale(node: fx.Node, factor: float, middle: fx.Node | None = None) -> None:
    """Multiply the result of `node` by `factor`; of a mean of (x - middle)**2, add what zeros give for the others."""
    with node.graph.inserting_before(node.next):
        scaled = node.graph.call_function(_ATEN.mul.Tensor, (node, factor))
        result: Any = fx.Proxy(scaled)
        if middle is not None:
            result = result + cast(Any, fx.Proxy(middle)) ** 2 * (1 - factor)
    node.replace_all_uses_with(result.node, delete_user_cb=lambda user: user is not scaled)


def _replace(node: fx.Node, other: fx.Node) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
