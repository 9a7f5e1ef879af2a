"""Where a traced network reads nodes with weights that can be adjusted."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from compress.graph.flow import arguments_of
from compress.graph.names import name_of
from compress.graph.trace import Trace
from compress.select.compensation import windows
from compress.select.compensation.windows import Product

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@dataclass(frozen=True)
class Own:
    """A tensor of the network, or a view of one, in the dense and in the pruned network.

    marks: of each entry, whether it is kept, or where it is in its tensor; see `OwnTensors`.
    """

    dense: Tensor
    pruned: Tensor
    marks: Tensor

    @property
    def key(self) -> Hashable:
        """Equal for the same entries of the same tensor."""
        view = self.pruned
        return view.untyped_storage().data_ptr(), view.storage_offset(), tuple(view.shape), view.stride()


@dataclass(frozen=True)
class Reader:
    """A product with a weight of the network's own."""

    weight: Own
    bias: Own | None
    product: Product

    def is_free(self, once: Set[Hashable]) -> bool:
        """Whether only this operator uses its weight and its bias."""
        return self.weight.key in once and (self.bias is None or self.bias.key in once)


class OwnTensors:
    """The tensors of the dense and of the pruned network, by the names that a trace has for them.

    Views of the pruned network's share their memory, so that a weight may be adjusted through a view of it.
    """

    def __init__(self, tensors: Mapping[str, Tensor], keep: Mapping[str, Tensor] | None) -> None:
        """keep: masks, True = keep, by any of a tensor's names; None to number the entries of each tensor instead."""
        masks = {id(tensors[name]): mask for name, mask in (keep or {}).items()}
        made: dict[int, Own] = {}
        for tensor in tensors.values():
            if id(tensor) in made:
                continue
            dense = tensor.detach().clone()
            if keep is None:
                made[id(tensor)] = Own(dense, dense, torch.arange(dense.numel()).reshape(dense.shape))
            elif (mask := masks.get(id(tensor))) is not None:
                made[id(tensor)] = Own(dense, dense * mask.to(dense.device), mask.to(dense.device))
            else:
                made[id(tensor)] = Own(dense, dense.clone(), torch.ones_like(dense, dtype=torch.bool))
        self.of = {name: made[id(tensor)] for name, tensor in tensors.items()}
        self._storages = {own.pruned.untyped_storage().data_ptr() for own in self.of.values()}

    def named(self, name: str) -> Own:
        """The tensor of that name, also while it has a mask."""
        return self.of[name] if name in self.of else self.of[f"{name}_orig"]

    def seen(self, traced: Trace) -> dict[fx.Node, Own]:
        """The network's tensors in a trace, and what is computed from them alone as a view of one."""
        found: dict[fx.Node, Any] = {}
        for node in traced.graph.nodes:
            if node.op == "get_attr" and node.target in self.of:
                found[node] = self.of[node.target]
            elif node.op == "call_function" and node.all_input_nodes and found.keys() >= set(node.all_input_nodes):
                found[node] = self._view(node, found)
                if found[node] is None:
                    del found[node]
        return {node: own for node, own in found.items() if isinstance(own, Own)}

    def _view(self, node: fx.Node, found: Mapping[fx.Node, Any]) -> Any:
        """The result of `node` if it is a view, or several views."""
        if name_of(node) not in _VIEWS:
            return None
        sides = [
            node.target(*fx.node.map_arg(node.args, pick), **fx.node.map_arg(node.kwargs, pick))  # type: ignore[operator]
            for pick in (_side(found, name) for name in ("dense", "pruned", "marks"))
        ]
        if isinstance(sides[0], Tensor):
            shared = sides[1].untyped_storage().data_ptr() in self._storages
            return Own(*sides) if shared else None
        return [Own(*parts) for parts in zip(*sides, strict=True)]


_VIEWS = {
    *("t", "transpose", "permute", "numpy_T", "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze"),
    *("select", "slice", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "getitem"),
    *("detach", "alias", "movedim", "swapaxes", "contiguous"),
}


def _side(found: Mapping[fx.Node, Any], name: str) -> Any:
    def pick(node: fx.Node) -> Any:
        own = found[node]
        return [getattr(one, name) for one in own] if isinstance(own, list) else getattr(own, name)

    return pick


def readers(traced: Trace, seen: Mapping[fx.Node, Own]) -> dict[fx.Node, Reader]:
    """The operators with a weight of the network's own, and no bias or one of its own."""
    return {node: reader for node in traced.graph.nodes if (reader := _reader(node, seen)) is not None}


def used_once(traced: Trace, seen: Mapping[fx.Node, Own]) -> set[Hashable]:
    """Keys of the views whose entries no other operator uses, so that they can be fitted to one input.

    A tied weight is not among them, nor that of a layer that is called several times: its calls have different inputs.
    """
    ranges: dict[int, list[tuple[int, int, Hashable]]] = defaultdict(list)
    for node in traced.graph.nodes:
        if node not in seen:
            for source in node.all_input_nodes:
                if source in seen:
                    view = seen[source].pruned
                    last = sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True))
                    start = int(view.storage_offset())
                    ranges[view.untyped_storage().data_ptr()].append((start, start + int(last), seen[source].key))
    return {
        key
        for uses in ranges.values()
        for place, (first, last, key) in enumerate(uses)
        if not any(first <= end and start <= last for start, end, _ in uses[:place] + uses[place + 1 :])
    }


def _reader(node: fx.Node, seen: Mapping[fx.Node, Own]) -> Reader | None:
    name, given = name_of(node), arguments_of(node)
    weight, bias = given.get("weight"), given.get("bias")
    if name == "linear":
        return _made(seen, weight, bias, windows.linear)
    if name in ("addmm", "mm", "matmul"):
        weight = given["mat2"] if "mat2" in given else given.get("other")
        plain = given.get("alpha", 1) == given.get("beta", 1) == 1
        if not plain or not isinstance(weight, fx.Node) or weight not in seen or seen[weight].dense.ndim != 2:
            return None
        bias = given["self"] if name == "addmm" else None
        return _made(seen, weight, bias, lambda own: windows.linear(own, transposed=True))
    if name in _CONVOLUTIONS:
        how = [given[key] for key in ("stride", "padding", "dilation", "groups")]
        return _made(seen, weight, bias, lambda own: windows.convolution(own, *how))
    if name in _TRANSPOSED:
        how = [given[key] for key in ("stride", "padding", "output_padding", "groups", "dilation")]
        return _made(seen, weight, bias, lambda own: windows.transposed_convolution(own, *how))
    if name == "convolution":
        pad = ("output_padding", "groups", "dilation") if given["transposed"] else ("dilation", "groups")
        make = windows.transposed_convolution if given["transposed"] else windows.convolution
        how = [given[key] for key in ("stride", "padding", *pad)]
        return _made(seen, weight, bias, lambda own: make(own, *how))
    return None


def _made(seen: Mapping[fx.Node, Own], weight: Any, bias: Any, product: Any) -> Reader | None:
    own = seen.get(weight)
    if own is None or not own.dense.is_floating_point():
        return None
    if bias is not None and (bias not in seen or seen[bias].dense.ndim != 1):
        return None
    return Reader(own, None if bias is None else seen[bias], product(own.dense))


def source_of(node: fx.Node) -> fx.Node:
    """What a reader reads."""
    given = arguments_of(node)
    found = given["mat1"] if "mat1" in given else given["self"] if "self" in given else given["input"]
    assert isinstance(found, fx.Node)
    return found
