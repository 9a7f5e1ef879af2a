"""`result_of`: the result of an operator for tensors without data.

torch computes the sizes of many results in Python, or decomposes the operator, which takes longer than the rest of a
trace. For the most frequent operators, this module computes the sizes from those of the operands, if these clearly fit.
torch decides in all other cases, and raises its errors.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from compress.graph.dimensions import BATCH
from compress.graph.stand_in import META

_ATEN = torch.ops.aten
# Without data, torch decomposes them into the operators of every step, and a sequence may have any length.
_RECURRENT = {_ATEN.lstm.input, _ATEN.gru.input, _ATEN.rnn_tanh.input, _ATEN.rnn_relu.input}
# The same of sequences of several lengths, whose steps lie one after the other: [steps of all sequences, width].
_PACKED = {_ATEN.lstm.data, _ATEN.gru.data, _ATEN.rnn_tanh.data, _ATEN.rnn_relu.data}
_STEPS = 1_000_033
# Pointwise, but torch does not tag them so.
_UNTAGGED = {
    *(_ATEN.relu.default, _ATEN.relu_.default, _ATEN.hardtanh.default, _ATEN.hardtanh_.default),
    *(_ATEN.hardswish.default, _ATEN.hardswish_.default, _ATEN.relu6.default, _ATEN.relu6_.default),
}


def result_of(func: Any, args: Any, kwargs: Any) -> Any:
    """The result of `func`, an operator of torch, for tensors of the device "meta".

    Raises:
        NotImplementedError, RuntimeError: torch cannot tell, or the operator does not run on them.
    """
    sizes = _sizes_of(func)
    found = sizes(func, *args, **kwargs) if sizes else None
    return func(*args, **kwargs) if found is None else found


Sizes = Callable[..., Any]  # the result; None where torch must decide


@functools.cache
def _sizes_of(func: Any) -> Sizes | None:
    if func in _SIZES:
        return _SIZES[func]
    random = torch.Tag.nondeterministic_seeded in func.tags
    return _pointwise if not random and (torch.Tag.pointwise in func.tags or func in _UNTAGGED) else None


def _new(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=META)


def _alike(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor with the same sizes and strides."""
    if tensor.is_contiguous():  # torch.empty_like is a hundred times slower
        return torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device=META)
    return torch.empty_like(tensor, dtype=dtype)


def _agree(*tensors: Tensor | None) -> bool:
    """Whether they have one dtype."""
    return len({tensor.dtype for tensor in tensors if tensor is not None}) == 1


def _pointwise(func: Any, *args: Any, **kwargs: Any) -> Tensor | None:
    """The dtype is that of the operator's result for numbers that have data."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    if not tensors or any(isinstance(value, Tensor) for value in kwargs.values()):
        return None
    first = tensors[0]
    equal = all(one.shape == first.shape and one.stride() == first.stride() for one in tensors)
    if not equal and not all(one.is_contiguous() for one in tensors):
        return None
    shape = first.shape if equal else _broadcast([one.shape for one in tensors])
    if shape is None or (func._schema.is_mutable and args[0].shape != shape):
        return None
    try:
        numbers = (torch.ones((1,) * one.ndim, dtype=one.dtype) if isinstance(one, Tensor) else one for one in args)
        result = func(*numbers, **kwargs)
    except Exception:  # torch raises it again, for the tensors themselves
        return None
    if func._schema.is_mutable:
        return args[0] if isinstance(args[0], Tensor) else None
    if not isinstance(result, Tensor):
        return None
    return _alike(first, result.dtype) if equal else torch.empty(shape, dtype=result.dtype, device=META)


def _broadcast(shapes: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
    found: list[int] = []
    for shape in shapes:
        found = [1] * (len(shape) - len(found)) + found
        for place, size in enumerate(shape, len(found) - len(shape)):
            if found[place] == 1:
                found[place] = size
            elif size not in (1, found[place]):
                return None
    return tuple(found)


def _like_the_first(func: Any, first: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return first if func._schema.is_mutable else _alike(first)


def _of_its_sizes(func: Any, like: Tensor, *args: Any, dtype: Any = None, **kwargs: Any) -> Tensor | None:
    """Of operators such as `zeros_like`."""
    return None if kwargs.get("memory_format") or kwargs.get("layout") else _alike(like, dtype)


def _linear(func: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if not inputs.ndim or weight.ndim != 2 or inputs.shape[-1] != weight.shape[1]:
        return None
    if not _agree(inputs, weight, bias) or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return _new(inputs, (*inputs.shape[:-1], weight.shape[0]))


def _added_product(func: Any, added: Tensor, one: Tensor, other: Tensor, **_: Any) -> Tensor | None:
    fits = one.ndim == other.ndim == 2 and added.ndim == 1 and one.shape[1] == other.shape[0]
    if not fits or added.shape[0] != other.shape[1] or not _agree(added, one, other):
        return None
    return _new(one, (one.shape[0], other.shape[1]))


def _product(func: Any, one: Tensor, other: Tensor) -> Tensor | None:
    if min(one.ndim, other.ndim) < 2 or one.shape[-1] != other.shape[-2] or not _agree(one, other):
        return None
    if other.ndim > 2 and one.shape[:-2] != other.shape[:-2]:
        return None
    return _new(one, (*one.shape[:-1], other.shape[-1]))


def _convolution(
    func: Any,
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Tensor | None:
    rank = weight.ndim - 2
    if inputs.ndim != weight.ndim or not _agree(inputs, weight, bias):
        return None
    if inputs.shape[1] != weight.shape[1] * groups or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    if not (inputs.is_contiguous() and weight.is_contiguous()):  # pictures may have their channels last
        return None
    steps, borders, gaps = (_each(one, rank) for one in (stride, padding, dilation))
    spans = [gap * (size - 1) + 1 for gap, size in zip(gaps, weight.shape[2:], strict=True)]
    sizes = [
        (size + 2 * border - span) // step + 1
        for size, border, span, step in zip(inputs.shape[2:], borders, spans, steps, strict=True)
    ]
    return _new(inputs, (inputs.shape[0], weight.shape[0], *sizes)) if min(sizes) > 0 else None


def _each(given: Sequence[int], rank: int) -> Sequence[int]:
    return list(given) * rank if len(given) == 1 else given


def _attention(
    func: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor | None:
    if query.ndim < 3 or not _agree(query, key, value) or not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return None
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        return None
    scores = (*query.shape[:-1], key.shape[-2])
    if mask is not None and _broadcast([scores, mask.shape]) != scores:
        return None
    return _new(query, (*query.shape[:-1], value.shape[-1]))


def _reduced(
    func: Any, inputs: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor | None:
    if not (inputs.is_contiguous() and inputs.is_floating_point() and dtype is None and inputs.ndim):
        return None
    rank = inputs.ndim
    places = {dim % rank for dim in dims if -rank <= dim < rank} if dims else set(range(rank))
    if dims and len(places) != len(dims):
        return None
    sizes = [1 if place in places else size for place, size in enumerate(inputs.shape)]
    return _new(inputs, [size for place, size in enumerate(sizes) if keepdim or place not in places])


def _length(func: Any, inputs: Tensor, order: Any = 2, dims: Any = None, keepdim: bool = False, **rest: Any) -> Any:
    return None if rest else _reduced(func, inputs, dims, keepdim)


def _joined(func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    if not first.ndim or not -first.ndim <= dim < first.ndim or not _agree(*tensors):
        return None
    place = dim % first.ndim
    others = {(*one.shape[:place], *one.shape[place + 1 :]) for one in tensors}
    if len(others) != 1 or any(one.ndim != first.ndim or not one.is_contiguous() for one in tensors):
        return None
    return _new(first, (*first.shape[:place], sum(one.shape[place] for one in tensors), *first.shape[place + 1 :]))


def _pooled_to(func: Any, inputs: Tensor, sizes: Sequence[int]) -> Tensor | None:
    rank = len(sizes)
    if inputs.ndim <= rank or not inputs.is_contiguous():
        return None
    return _new(inputs, (*inputs.shape[:-rank], *sizes))


def _resampled(func: Any, inputs: Tensor, sizes: Any, *rest: Any) -> Tensor | None:
    """The last argument is the factor for each of the picture's sizes."""
    if not inputs.is_contiguous():
        return None
    rank = inputs.ndim - 2
    if sizes is None:
        sizes = [math.floor(size * by) for size, by in zip(inputs.shape[2:], rest[-1], strict=True)]
    return _new(inputs, (*inputs.shape[:2], *sizes)) if len(sizes) == rank and min(sizes) > 0 else None


def _sampled(func: Any, inputs: Tensor, grid: Tensor, *_: Any) -> Tensor | None:
    fits = inputs.ndim == grid.ndim == 4 and len(inputs) == len(grid) and grid.shape[-1] == 2 and _agree(inputs, grid)
    return _new(inputs, (*inputs.shape[:2], *grid.shape[1:3])) if fits and inputs.is_contiguous() else None


def _recurrent(func: Any, *args: Any) -> tuple[Tensor, ...]:
    packed = func in _PACKED
    inputs, state, bidirectional = args[0], args[2 if packed else 1], args[8 if packed else 7]
    last = state[0] if isinstance(state, list) else state
    outputs = inputs.new_empty(*inputs.shape[:-1], last.shape[-1] * (2 if bidirectional else 1))
    return outputs, *map(torch.empty_like, state if isinstance(state, list) else [state])


def _packed(func: Any, inputs: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    steps = inputs.shape[1 if batch_first else 0]
    return inputs.new_empty(_STEPS, *inputs.shape[2:]), torch.empty(steps, dtype=torch.long, device=META)


def _padded(func: Any, inputs: Tensor, rows: Tensor, batch_first: bool, *_: Any) -> tuple[Tensor, Tensor]:
    shape = (BATCH, len(rows)) if batch_first else (len(rows), BATCH)
    return inputs.new_empty(*shape, *inputs.shape[1:]), torch.empty(BATCH, dtype=torch.long, device=META)


_SIZES: dict[Any, Sizes] = {
    _ATEN.linear.default: _linear,
    _ATEN.addmm.default: _added_product,
    _ATEN.matmul.default: _product,
    _ATEN.bmm.default: _product,
    _ATEN.scaled_dot_product_attention.default: _attention,
    _ATEN.cat.default: _joined,
    _ATEN.linalg_vector_norm.default: _length,
    _ATEN.grid_sampler.default: _sampled,
    _ATEN._pack_padded_sequence.default: _packed,
    _ATEN._pad_packed_sequence.default: _padded,
    **dict.fromkeys(_RECURRENT | _PACKED, _recurrent),
    **dict.fromkeys((_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default), _convolution),
    **dict.fromkeys((_ATEN.mean.dim, _ATEN.sum.dim_IntList, _ATEN.amax.default, _ATEN.amin.default), _reduced),
    **dict.fromkeys((_ATEN.adaptive_avg_pool1d.default, _ATEN.adaptive_avg_pool2d.default), _pooled_to),
    **dict.fromkeys((_ATEN.upsample_nearest1d.vec, _ATEN.upsample_nearest2d.vec), _resampled),
    **dict.fromkeys((_ATEN.upsample_bilinear2d.vec, _ATEN.upsample_bicubic2d.vec), _resampled),
    **dict.fromkeys((_ATEN.zeros_like.default, _ATEN.ones_like.default, _ATEN.full_like.default), _of_its_sizes),
    **dict.fromkeys((_ATEN.rand_like.default, _ATEN.randn_like.default), _of_its_sizes),
    **dict.fromkeys((_ATEN.batch_norm.default, _ATEN.instance_norm.default), _like_the_first),
    **dict.fromkeys((_ATEN.group_norm.default, _ATEN.layer_norm.default), _like_the_first),
    _ATEN.rms_norm.default: _like_the_first,
    # The number of positions where an index of bools is true does not matter.
    **dict.fromkeys((_ATEN.index_put.default, _ATEN.index_put_.default), _like_the_first),
}
