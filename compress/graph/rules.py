"""The rule of each operator of torch: one for each family, whatever the overload, in place or not."""

import operator
from functools import cache

import torch
from torch import Tensor, fx

from compress.graph import (
    attention,
    contractions,
    layers,
    norms,
    positions,
    recurrent,
    reductions,
    shapes,
    weights,
    windows,
)
from compress.graph.flow import Flow, Rule
from compress.graph.names import ALIASES, name_of

# Operators that torch tags as pointwise need no entry.
_ONE_TO_ONE = (
    *("contiguous", "detach", "alias", "to", "_to_copy", "type_as", "copy", "lift_fresh_copy", "zero", "_neg_view"),
    *("hardswish", "log_sigmoid", "fill", "zeros_like", "ones_like", "full_like", "empty_like", "floor_divide"),
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "broadcast_tensors"),
    *("real", "imag", "conj", "resolve_conj", "resolve_neg", "complex", "polar", "special_ndtr", "special_log_ndtr"),
    *("__and__", "__or__", "__xor__", "__lshift__", "__rshift__", "isclose", "isreal", "_masked_scale", "_add_relu"),
)
_RESAMPLING = (
    *("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "adaptive_max_pool{}d", "adaptive_avg_pool{}d"),
    *("upsample_nearest{}d", "_upsample_nearest_exact{}d"),
)
_PERMUTING = (
    *("permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "numpy_T", "mT", "mH", "matrix_H"),
    *("adjoint",),
)
_MIXING = (
    *("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "cummax"),
    *("cummin", "logcumsumexp", "roll", "flip", "sort", "argsort", "msort"),
)
_REDUCING = (
    *("amax", "amin", "aminmax", "any", "all", "argmax"),
    *("argmin", "logsumexp", "median", "nanmedian", "nanmean", "mode", "kthvalue", "prod", "quantile", "nanquantile"),
)
_PADDING = ("pad", "constant_pad_nd", "_pad_circular", "_pad_enum", "reflection_pad{}d", "replication_pad{}d")
_FILLED = ("zeros", "new_zeros", "ones", "new_ones", "full", "new_full", "empty", "new_empty")
_SPECTRA = (
    *(f"fft_{way}{name}{rank}" for way in ("", "i") for name in ("fft", "rfft", "hfft") for rank in ("", "2", "n")),
    *("fft_fftshift", "fft_ifftshift", "_fft_c2c", "_fft_r2c", "_fft_c2r"),
)
_MATRICES = tuple(
    f"linalg_{name}"
    for name in (
        *("inv", "inv_ex", "solve", "solve_ex", "solve_triangular", "cholesky", "cholesky_ex", "det", "slogdet"),
        *("svd", "svdvals", "eigh", "eigvalsh", "qr", "pinv", "matrix_exp", "matrix_power"),
    )
)
_RULES: dict[str, Rule] = {
    "linear": layers.linear,
    "einsum": contractions.einsum,
    "bilinear": contractions.bilinear,
    "tensordot": contractions.tensordot,
    "inner": contractions.inner,
    "outer": contractions.outer,
    "kron": contractions.kronecker,
    "linalg_vecdot": contractions.vector_product,
    "linalg_multi_dot": contractions.chain_of_products,
    "cosine_similarity": contractions.cosine,
    "cdist": contractions.distances,
    "_grouped_mm": contractions.grouped_product,
    "transformers::grouped_mm_fallback": contractions.grouped_product,
    "scaled_dot_product_attention": attention.attention,
    "_scaled_dot_product_flash_attention_for_cpu": attention.attention,
    "batch_norm": layers.normalization,
    "instance_norm": layers.normalization,
    "layer_norm": norms.layer_normalization,
    "rms_norm": norms.layer_normalization,
    "native_layer_norm": layers.with_statistics(layers.decomposed_layer_normalization),
    "_fused_rms_norm": layers.with_statistics(layers.decomposed_layer_normalization),
    "group_norm": norms.group_normalization,
    "native_group_norm": layers.with_statistics(norms.group_normalization),
    "embedding": layers.embedding,
    "embedding_bag": layers.embedding_bag,
    "torchvision::deform_conv2d": layers.deformable_convolution,
    "lstm": recurrent.recurrent(gates=4),
    "gru": recurrent.recurrent(gates=3),
    "rnn_tanh": recurrent.recurrent(gates=1),
    "rnn_relu": recurrent.recurrent(gates=1),
    "lstm_cell": recurrent.cell(gates=4),
    "gru_cell": recurrent.cell(gates=3),
    "rnn_tanh_cell": recurrent.cell(gates=1),
    "rnn_relu_cell": recurrent.cell(gates=1),
    "_pack_padded_sequence": recurrent.pack,
    "_pad_packed_sequence": recurrent.unpack,
    "norm_except_dim": weights.lengths,
    "prelu": shapes.slopes,
    "_prelu_kernel": shapes.elementwise,
    "flatten": shapes.flatten,
    "ravel": shapes.flatten,
    "unflatten": shapes.unflatten,
    "squeeze": shapes.squeeze,
    "unsqueeze": shapes.unsqueeze,
    "expand": shapes.expand,
    "expand_as": shapes.expand,
    "repeat": shapes.repeat,
    "repeat_interleave": shapes.repeat_interleave,
    "cat": shapes.concatenate,
    "hstack": shapes.concatenate,
    "column_stack": shapes.concatenate,
    "stack": shapes.stack,
    "meshgrid": shapes.meshgrid,
    "view_as_complex": shapes.view_as_complex,
    "view_as_real": shapes.view_as_real,
    "channel_shuffle": shapes.channel_shuffle,
    "native_channel_shuffle": shapes.channel_shuffle,
    "glu": shapes.gated,
    "slice": positions.part,
    "narrow": positions.part,
    "slice_scatter": positions.part_written,
    "select": positions.select,
    "unbind": positions.select,
    "select_scatter": positions.selected_written,
    "index": positions.index,
    "index_put": positions.index_written,
    "index_select": positions.index_select,
    "gather": positions.gather,
    "diagonal": positions.diagonal,
    "linalg_diagonal": positions.diagonal,
    "one_hot": positions.one_hot,
    "sum": reductions.reduction(reductions.summed),
    "mean": reductions.reduction(norms.count),
    "nansum": reductions.reduction(reductions.summed),
    "count_nonzero": reductions.reduction(reductions.summed),
    "norm": reductions.norm,
    "linalg_norm": reductions.norm,
    "linalg_vector_norm": reductions.norm,
    "max": reductions.greatest,
    "min": reductions.greatest,
    "topk": reductions.chosen,
    "diff": reductions.chosen,
    "tril": reductions.triangle,
    "triu": reductions.triangle,
    "rot90": reductions.turned,
    "linalg_cross": reductions.crossed,
    "cross": reductions.crossed,
    "pixel_shuffle": windows.pixel_shuffle,
    "pixel_unshuffle": windows.pixel_unshuffle,
    "im2col": windows.patches,
    "col2im": windows.folded,
    "unfold": windows.sliding,
    "affine_grid_generator": windows.affine_grid,
    "torchvision::roi_align": windows.regions,
    "torchvision::roi_pool": windows.regions,
    "stft": windows.short_spectra,
    "istft": windows.short_spectra,
    "upsample_linear1d": windows.resampled(1),
    "upsample_bilinear2d": windows.resampled(2),
    "upsample_bicubic2d": windows.resampled(2),
    "_upsample_bilinear2d_aa": windows.resampled(2),
    "_upsample_bicubic2d_aa": windows.resampled(2),
    "upsample_trilinear3d": windows.resampled(3),
    "max_unpool2d": windows.resampled(2),
    "max_unpool3d": windows.resampled(3),
    **dict.fromkeys(("arange", "linspace", "logspace", "eye", "scalar_tensor", "randperm"), shapes.constant),
    **dict.fromkeys(("tril_indices", "triu_indices", "fft_fftfreq", "fft_rfftfreq"), shapes.constant),
    **dict.fromkeys(("hann_window", "hamming_window", "blackman_window", "bartlett_window"), shapes.constant),
    **dict.fromkeys(_ONE_TO_ONE, shapes.elementwise),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "reshape_as", "view_as"), shapes.view),
    **dict.fromkeys(("split", "chunk", "split_with_sizes", "tensor_split"), positions.pieces),
    **dict.fromkeys(("hsplit", "vsplit", "dsplit"), positions.pieces),
    **dict.fromkeys(("index_add", "index_copy", "index_fill", "index_reduce"), positions.rows_written),
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), positions.scatter),
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d"), windows.sampled),
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot"), contractions.matmul),
    **dict.fromkeys(("addmm", "addmv", "addr", "addbmm", "baddbmm"), contractions.addmm),
    **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), weights.weight_norm),
    **dict.fromkeys(_PERMUTING, shapes.permute),
    **dict.fromkeys(_MIXING, reductions.along),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), reductions.reduction(norms.variance)),
    **dict.fromkeys(_REDUCING, reductions.reduction(reductions.combined)),
    **dict.fromkeys(_FILLED, shapes.filled),
    **dict.fromkeys(_SPECTRA, windows.spectrum),
    **dict.fromkeys(_MATRICES, reductions.matrices),
    **dict.fromkeys(("convolution", "_convolution"), layers.any_convolution),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
        layers.with_statistics(layers.normalization),
    ),
    **{name.format(rank): windows.pad for rank in (1, 2, 3) for name in _PADDING},
    **{f"conv{rank}d": layers.convolution for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": layers.transposed_convolution for rank in (1, 2, 3)},
    **{name.format(rank): windows.resampled(rank) for rank in (1, 2, 3) for name in _RESAMPLING},
}

# Operators whose result is zero where all of their tensors are, and where the first is.
_ZERO_OF_ALL = {
    *("view", "reshape", "_unsafe_view", "reshape_as", "flatten", "ravel", "unflatten", "squeeze", "unsqueeze", "cat"),
    *("stack", "hstack", "column_stack", "slice", "narrow", "select", "unbind", "split", "chunk", "split_with_sizes"),
    *("tensor_split", "getitem", *_PERMUTING, "contiguous", "clone", "detach", "alias", "to", "_to_copy", "dropout"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "roll", "flip", "rot90", "repeat", "diagonal"),
    *("repeat_interleave", "slice_scatter", "select_scatter", "real", "imag", "conj", "resolve_conj", "view_as_real"),
    *("view_as_complex", "unfold", "im2col", "col2im", *_SPECTRA, "tril", "triu", "cumsum", "glu", "sum", "nansum"),
    *("mean", "norm", "linalg_vector_norm", "norm_except_dim", "var", "std", "var_mean", "std_mean"),
    *("relu", "gelu", "silu", "tanh", "hardswish", "leaky_relu", "elu", "selu", "celu", "mish", "relu6", "neg", "abs"),
    *("sqrt", "square", "sin", "tan", "asin", "atan", "sinh", "erf", "expm1", "log1p", "sign", "round", "trunc"),
    *("floor", "ceil", "softshrink", "hardshrink", "expand", "expand_as", "broadcast_tensors"),
    *(name.format(rank) for rank in (1, 2, 3) for name in _RESAMPLING),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
}
_ZERO_OF_FIRST = {"div", "index", "index_select", "gather", "type_as"}
_ZEROS = {"zeros", "new_zeros", "zeros_like", "zero"}


def rule_of(node: fx.Node) -> Rule:
    if node.target is operator.getitem and isinstance(node.args[1], int):
        return positions.item
    if not isinstance(node.meta.get("val"), Tensor | tuple | list):
        values = any(isinstance(source.meta.get("val"), Tensor) for source in node.all_input_nodes)
        return _no_rule if values and not name_of(node).startswith(("sym_", "_assert")) else shapes.number
    if not isinstance(node.target, torch._ops.OpOverload):
        return _no_rule
    tagged = shapes.elementwise if torch.Tag.pointwise in node.target.tags else None
    return rule_named(name_of(node)) or tagged or _no_rule


def rule_named(name: str) -> Rule | None:
    """The rule of the operator with this name ("add", "torchvision::roi_align"), if it has one."""
    family = _family(name)
    return _RULES.get(family) or (shapes.elementwise if is_pointwise(family) else None)


@cache
def is_pointwise(name: str) -> bool:
    """Whether torch tags any overload of the operator; it does not tag all overloads or in-place variants."""
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and any(
        torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()
    )


def _family(name: str) -> str:
    """The name under which the operator's rule is listed."""
    if name not in _RULES and name.removesuffix("_copy") in _RULES:  # as a copy, where the other is a view
        name = name.removesuffix("_copy")
    return ALIASES.get(name, name)


def note_zeros(flow: Flow, node: fx.Node) -> None:
    """Record where the result of `node` vanishes at dead nodes, unless its rule has done so."""
    weights.note_acting(flow, node)
    name, sources = _family(name_of(node)), [source for source in node.all_input_nodes if flow.values[source]]
    zeros = [flow.zeros(source) for source in sources]
    if name in ("add", "sub"):
        # An operand that lacks a dimension adds its numbers to all nodes there.
        both = all(isinstance(argument, fx.Node) for argument in node.args[:2])
        found = set.intersection(*zeros) if zeros and both else set()
    elif name in _ZEROS:
        found = flow.factors(node)
    elif name in _ZERO_OF_FIRST:
        found = zeros[0] if zeros else set()
    elif name == "copy":
        found = zeros[-1] if zeros else set()
    elif name == "mul":
        found = set().union(*zeros)
    elif name in _ZERO_OF_ALL or _is_power(node):
        other = [flow.factors(source) - zero for source, zero in zip(sources, zeros, strict=True)]
        found = set().union(*zeros).difference(*other)
    else:
        found = flow.zeros(node)
    if name == "getitem" and not (node.meta["val"].is_floating_point() or node.meta["val"].is_complex()):
        found = set()  # such as the positions of the maxima of zeros
    flow.vanishes(node, found & flow.factors(node))
    flow.write_through(node)


def is_zero_preserving(node: fx.Node) -> bool:
    """Whether the result is zero wherever the first tensor is, or all of them are."""
    return _family(name_of(node)) in _ZERO_OF_ALL | _ZERO_OF_FIRST or _is_power(node)


def _is_power(node: fx.Node) -> bool:
    return name_of(node) == "pow" and isinstance(node.args[1], int | float) and node.args[1] > 0


def _no_rule(flow: Flow, node: fx.Node, arguments: dict[str, object]) -> str:
    return "has no rule"
