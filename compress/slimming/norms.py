"""Norms that divide by the number of nodes before the cut.

Of n nodes, m are left; the others were zero. With sums over these m, the layer norm over all n has

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

from compress.graph.flow import arguments_of, places_of
from compress.graph.names import name_of
from compress.graph.norms import VARIANCES, centre, epsilon_of, norm_kind, shifted

_ATEN = torch.ops.aten
_MEANS = {_ATEN.layer_norm, _ATEN.rms_norm, _ATEN.mean, _ATEN.group_norm, _ATEN.batch_norm, *VARIANCES}
_HALF = (torch.float16, torch.bfloat16)


def moments(
    x: Tensor, dims: list[int], share: float, keepdim: bool = True, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and variance over `dims` of all entries, of which this share is left in x; the others are minus `shift`."""
    mean, square = (entries.mean(dims, keepdim=keepdim) * share for entries in (x, x * x))
    if shift is not None:
        shift = shift.reshape_as(mean)
        mean, square = mean - shift * (1 - share), square + shift * shift * (1 - share)
    return mean, square - mean * mean


def normalized(x: Tensor, dims: list[int], share: float, eps: float) -> Tensor:
    """x less its mean, divided by its standard deviation; see `moments`."""
    mean, variance = moments(x, dims, share)
    return (x - mean) * (variance + eps).rsqrt()


class CountedLayerNorm(nn.LayerNorm):
    """Layer normalization over the remaining ones of `count` nodes; the others were zero.

    Args:
        norm: the norm whose weight, bias, epsilon and mode it has.
        count: number of nodes before the cut.
        left: number of nodes after it.
        axis: the dimension of the input that contains the nodes; 0 for the last.
    """

    def __init__(self, norm: nn.Module, count: int, left: int, axis: int) -> None:
        eps = getattr(norm, epsilon_of(norm) or "eps")
        super().__init__((left,), eps, elementwise_affine=False)
        self.count, self.axis = count, axis or -1
        self.elementwise_affine = getattr(norm, "weight", None) is not None
        self.weight, self.bias = getattr(norm, "weight", None), getattr(norm, "bias", None)  # type: ignore[assignment]
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        share = input.shape[self.axis] / self.count
        result = normalized(_wide(input).movedim(self.axis, -1), [-1], share, self.eps)
        result = result if self.weight is None else result * self.weight
        result = result if self.bias is None else result + self.bias
        return result.movedim(-1, self.axis).to(_dtype(input, self.weight))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, count={self.count}"


class CountedGroupNorm(nn.GroupNorm):
    """Normalization over all positions and the remaining ones of `count` channels; arguments as above."""

    def __init__(self, norm: nn.GroupNorm, count: int, left: int) -> None:
        super().__init__(1, left, norm.eps, affine=False)
        self.count, self.affine, self.weight, self.bias = count, norm.affine, norm.weight, norm.bias
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        share = input.shape[1] / self.count
        result = normalized(_wide(input), [*range(1, input.ndim)], share, self.eps)
        result = result if self.weight is None else result * _along_channels(self.weight, input)
        result = result if self.bias is None else result + _along_channels(self.bias, input)
        return result.to(_dtype(input, self.weight))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, count={self.count}"


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in _HALF else x


def _dtype(x: Tensor, weight: Tensor | None) -> torch.dtype:
    """In single precision under autocast, as torch's own: the weights are then of another dtype than the input."""
    return x.dtype if weight is None else torch.promote_types(x.dtype, weight.dtype)


def _along_channels(entries: Tensor, x: Tensor) -> Tensor:
    return entries.reshape(-1, *[1] * (x.ndim - 2))


def nodes_of(module: nn.Module | None) -> int | None:
    """Number of nodes over which a norm takes the mean; None for other modules, and if it already counts cut nodes."""
    if module is None or norm_kind(module) is None or isinstance(module, CountedLayerNorm | CountedGroupNorm):
        return None
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    shape: Any = getattr(module, "normalized_shape", None) or module.get_parameter("weight").shape
    if isinstance(shape, int):  # a norm of somebody's own
        return shape
    return shape[0] if len(shape) == 1 else None


def count_on(model: nn.Module, name: str, axis: int, before: int, after: int) -> None:
    """Let the norm `name`, now with `after` nodes, still count `before`; `rescale` makes the change of its weights."""
    norm = model.get_submodule(name)
    if norm_kind(norm) == "rms":
        epsilon = epsilon_of(norm)
        assert epsilon is not None
        old = getattr(norm, epsilon)
        smallest = torch.finfo(norm.get_parameter("weight").dtype).eps  # what torch takes for None
        setattr(norm, epsilon, (smallest if old is None else old) * before / after)
        return
    counted = (
        CountedGroupNorm(norm, before, after)
        if isinstance(norm, nn.GroupNorm)
        else CountedLayerNorm(norm, before, after, axis)
    )
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
    """The number that a norm adds to its weight, such as 1 in Gemma; found by trying."""
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
    """As `count_on`, for operators (name, nodes before, after) of a graph; weights do not change."""
    known = means_of(module)
    for name, before, after in means:
        node, arguments, share = known[name], arguments_of(known[name]), after / before
        operator: Any = node.target
        if operator is _ATEN.rms_norm.default:
            smallest = torch.finfo(node.meta["val"].dtype).eps
            eps = (smallest if arguments["eps"] is None else arguments["eps"]) * before / after
            node.args, node.kwargs = (arguments["input"], [after], arguments["weight"], eps), {}
            _scale(node, math.sqrt(before / after))
        elif operator.overloadpacket is _ATEN.mean:
            _scale(node, share, centre(node))
        else:
            with node.graph.inserting_before(node):
                written_out = _variance if operator.overloadpacket in VARIANCES else _normalization
                results = written_out(node, fx.map_arg(arguments, cast(Any, fx.Proxy)), share)
            _replace(node, results)


def _normalization(node: fx.Node, arguments: Any, share: float) -> list[Any]:
    """Layer and group normalization, and batch normalization by the statistics of its input."""
    x, weight, bias = (arguments[name] for name in ("input", "weight", "bias"))
    dtype, rank = node.meta["val"].dtype, node.meta["val"].ndim
    channels, kind = [-1, *[1] * (rank - 2)], node.target.overloadpacket  # type: ignore[union-attr]
    if kind is _ATEN.layer_norm:
        dims, shape = list(range(rank - len(arguments["normalized_shape"]), rank)), None
    else:
        dims, shape = [dim for dim in range(rank) if dim != (0 if kind is _ATEN.group_norm else 1)], channels
    result = normalized(x.float() if dtype in _HALF else x, dims, share, arguments["eps"])
    result = result if weight is None else result * (weight.reshape(shape) if shape else weight)
    result = result if bias is None else result + (bias.reshape(shape) if shape else bias)
    return [result.to(dtype) if dtype in _HALF else result]


def _variance(node: fx.Node, arguments: Any, share: float) -> list[Any]:
    """The results of one of `VARIANCES`: a variance or its root, and the mean."""
    x, name = node.all_input_nodes[0], name_of(node)
    shape, dims = x.meta["val"].shape, places_of(arguments.get("dim"), x.meta["val"].ndim)
    middle: Any = fx.Proxy(both[1]) if (both := shifted(node)) else None
    mean, variance = moments(arguments["self"], dims, share, arguments.get("keepdim", False), middle)
    count, correction = math.prod(shape[dim] for dim in dims), arguments.get("correction")
    correction = arguments.get("unbiased", True) if correction is None else correction
    variance = variance * (count / max(0, count - correction)) if correction else variance
    return [variance.sqrt() if name.startswith("std") else variance, *([mean] if name.endswith("mean") else [])]


def _scale(node: fx.Node, factor: float, middle: fx.Node | None = None) -> None:
    """Multiply the result of `node` by `factor`. To a mean of (x - middle)**2, add what the cut zeros contribute."""
    with node.graph.inserting_before(node.next):
        scaled = node.graph.call_function(_ATEN.mul.Tensor, (node, factor))
        result: Any = fx.Proxy(scaled)
        if middle is not None:
            result = result + cast(Any, fx.Proxy(middle)) ** 2 * (1 - factor)
    node.replace_all_uses_with(result.node, delete_user_cb=lambda user: user is not scaled)


def _replace(node: fx.Node, results: Sequence[fx.Proxy]) -> None:
    """Put `results` in the place of the one result of `node`, or of each of several."""
    if isinstance(node.meta["val"], tuple | list):
        for user in list(node.users):
            user.replace_all_uses_with(results[cast(int, user.args[1])].node)
            node.graph.erase_node(user)
    else:
        node.replace_all_uses_with(results[0].node)
    node.graph.erase_node(node)
