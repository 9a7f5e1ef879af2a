"""The rule of each operator of torch: one for each family, whatever the overload, in place or not."""

import operator

import torch
from torch import Tensor, fx

from compress.graph import layers, norms, shapes
from compress.graph.flow import Flow, Rule

# What torch itself tags as pointwise needs no entry.
_ONE_TO_ONE = (
    *("contiguous", "clone", "detach", "alias", "to", "_to_copy", "type_as", "copy", "lift_fresh_copy", "zero"),
    *("where", "hardswish", "leaky_relu", "log_sigmoid", "masked_fill", "fill", "zeros_like", "ones_like", "full_like"),
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
)
_RESAMPLING = (
    *("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "adaptive_max_pool{}d", "adaptive_avg_pool{}d"),
    *("upsample_nearest{}d", "_upsample_nearest_exact{}d"),
)
_PERMUTING = ("permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "numpy_T", "mT", "adjoint")
_MIXING = ("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "cumsum", "roll", "flip", "sort")
_REDUCING = (
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "any",
    "all",
    "argmax",
    "argmin",
    "logsumexp",
    "median",
)
_PADDING = ("pad", "constant_pad_nd", "reflection_pad{}d", "replication_pad{}d")
_FILLED = ("zeros", "new_zeros", "ones", "new_ones", "full", "new_full")
_RULES: dict[str, Rule] = {
    "linear": layers.linear,
    "addmm": layers.addmm,
    "baddbmm": layers.addmm,
    "einsum": layers.einsum,
    "scaled_dot_product_attention": layers.attention,
    "batch_norm": layers.normalization,
    "instance_norm": layers.normalization,
    "layer_norm": norms.layer_normalization,
    "rms_norm": norms.layer_normalization,
    "group_norm": layers.group_normalization,
    "embedding": layers.embedding,
    "lstm": layers.recurrent(gates=4),
    "gru": layers.recurrent(gates=3),
    "rnn_tanh": layers.recurrent(gates=1),
    "rnn_relu": layers.recurrent(gates=1),
    "prelu": shapes.slopes,
    "flatten": shapes.flatten,
    "unflatten": shapes.unflatten,
    "squeeze": shapes.squeeze,
    "unsqueeze": shapes.unsqueeze,
    "expand": shapes.expand,
    "expand_as": shapes.expand,
    "repeat": shapes.repeat,
    "cat": shapes.concatenate,
    "stack": shapes.stack,
    "slice": shapes.part,
    "select": shapes.select,
    "unbind": shapes.select,
    "index": shapes.index,
    "index_select": shapes.index_select,
    "sum": shapes.reduction(shapes.summed),
    "mean": shapes.reduction(norms.count),
    "linalg_vector_norm": shapes.reduction(shapes.summed),
    "pixel_shuffle": shapes.pixel_shuffle,
    "pixel_unshuffle": shapes.pixel_unshuffle,
    "channel_shuffle": shapes.channel_shuffle,
    "native_channel_shuffle": shapes.channel_shuffle,
    "glu": shapes.gated,
    "arange": shapes.constant,
    "scalar_tensor": shapes.constant,
    "upsample_linear1d": shapes.resampled(1),
    "upsample_bilinear2d": shapes.resampled(2),
    "upsample_bicubic2d": shapes.resampled(2),
    "upsample_trilinear3d": shapes.resampled(3),
    **dict.fromkeys(_ONE_TO_ONE, shapes.elementwise),
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), shapes.view),
    **dict.fromkeys(("split", "chunk", "split_with_sizes"), shapes.pieces),
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), layers.matmul),
    **dict.fromkeys(_PERMUTING, shapes.permute),
    **dict.fromkeys(_MIXING, shapes.along),
    **dict.fromkeys(_REDUCING, shapes.reduction(shapes.combined)),
    **dict.fromkeys(_FILLED, shapes.filled),
    **{name.format(rank): shapes.pad for rank in (1, 2, 3) for name in _PADDING},
    **{f"conv{rank}d": layers.convolution for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": layers.transposed_convolution for rank in (1, 2, 3)},
    **{name.format(rank): shapes.resampled(rank) for rank in (1, 2, 3) for name in _RESAMPLING},
}

# Operators whose result is zero where all of their tensors are, and where one of their tensors is.
_ZERO_OF_ALL = {
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "cat"),
    *("stack", "slice", "select", "unbind", "split", "chunk", "split_with_sizes", "getitem", *_PERMUTING, "index"),
    *("contiguous", "clone", "detach", "alias", "to", "_to_copy", "dropout", "zero", "pixel_shuffle", "roll", "flip"),
    *("relu", "gelu", "silu", "tanh", "hardswish", "leaky_relu", "elu", "neg", "abs", "sqrt", "sum"),
    *(f"{kind}_pool{rank}d" for kind in ("avg", "adaptive_avg", "max") for rank in (1, 2, 3)),
    *("mean", "linalg_vector_norm", "square", "pad", "zeros", "new_zeros", "repeat", "index_select", "channel_shuffle"),
}
_ZERO_OF_ONE = {"mul", "div"}


def rule_of(node: fx.Node) -> Rule:
    if node.target is operator.getitem and isinstance(node.args[1], int):
        return shapes.item
    if not isinstance(node.meta.get("val"), Tensor | tuple | list):
        values = any(isinstance(source.meta.get("val"), Tensor) for source in node.all_input_nodes)
        return _no_rule if values and not _name(node).startswith(("sym_", "_assert")) else shapes.number
    if not isinstance(node.target, torch._ops.OpOverload):
        return _no_rule
    name = _name(node)
    return _RULES.get(name) or (shapes.elementwise if torch.Tag.pointwise in node.target.tags else _no_rule)


def note_zeros(flow: Flow, node: fx.Node) -> None:
    """Where the result of `node` vanishes at dead nodes, unless its own rule says so."""
    name, sources = _name(node), [source for source in node.all_input_nodes if flow.values[source]]
    zeros = [flow.zeros(source) for source in sources]
    if name in ("add", "sub"):
        # An operand that lacks a dimension adds its numbers to all nodes there.
        both = all(isinstance(argument, fx.Node) for argument in node.args[:2])
        found = set.intersection(*zeros) if zeros and both else set()
    elif name in _ZERO_OF_ONE:
        found = set().union(*zeros[: 1 if name == "div" else None])
    elif name in _ZERO_OF_ALL or _is_power(node):
        other = [flow.factors(source) - zero for source, zero in zip(sources, zeros, strict=True)]
        found = set().union(*zeros).difference(*other)
    else:
        return
    flow.vanishes(node, found & flow.factors(node))


def _is_power(node: fx.Node) -> bool:
    return _name(node) == "pow" and isinstance(node.args[1], int | float) and node.args[1] > 0


def _name(node: fx.Node) -> str:
    if not isinstance(node.target, torch._ops.OpOverload):
        return str(getattr(node.target, "__name__", node.target))
    return str(node.target._schema.name.removeprefix("aten::").removesuffix("_"))


def _no_rule(flow: Flow, node: fx.Node, arguments: dict[str, object]) -> str:
    return "has no rule"
