"""Rules of the operators that mix neighbouring positions: padding, pooling, resampling, patches and spectra."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compress.graph.dimensions import Dim, fresh, is_kept, keep, regroup, size_of, total
from compress.graph.flow import BORDERS, EXTENT, Flow, Rule, Value, at, fresh_value, places_of
from compress.graph.names import name_of


def new_extents(flow: Flow, source: fx.Node, example: Tensor, count: int) -> tuple[Dim, ...]:
    """The last `count` dimensions, where the operator mixes positions: kept before it and after."""
    keep(flow.dims(source)[len(flow.dims(source)) - count :], EXTENT)
    fresh = fresh_value(example, EXTENT)
    assert isinstance(fresh, tuple)
    return fresh[len(fresh) - count :]


def pad(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    source, shape = arguments["self"], node.meta["val"].shape
    dims = list(flow.dims(source))
    amounts = arguments["pad"] if "pad" in arguments else arguments["padding"]
    constant = name_of(node) in ("pad", "constant_pad_nd") and arguments.get("mode", "constant") == "constant"
    for number in range(len(amounts) // 2):
        before, after = amounts[2 * number : 2 * number + 2]
        dim = dims[-1 - number]
        if constant and not is_kept(dim) and min(before, after) >= 0 < before + after:  # other nodes beside them
            beside = [[fresh(size, EXTENT)] if size else [] for size in (before, after)]
            dims[-1 - number] = total([*beside[0], dim, *beside[1]])
        elif before or after:
            keep(dim, EXTENT)
            dims[-1 - number] = fresh(shape[-1 - number], EXTENT)
    # Padding repeats what is there, or it has a value.
    if not (constant and arguments.get("value")):
        flow.vanishes(node, flow.zeros(source))
    return tuple(dims)


def resampled(rank: int) -> Rule:
    def rule(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
        """Pooling or upsampling over the last `rank` dimensions; with positions of maxima, two equal results."""
        source, results = node.all_input_nodes[0], node.meta["val"]
        before = flow.dims(source)[: len(flow.dims(source)) - rank]
        tensors = [other for other in node.all_input_nodes[1:] if isinstance(flow.values[other], tuple)]
        for other in tensors:  # the positions of maxima, on the way back
            for one, its in zip(before, flow.dims(other), strict=False):
                flow.align(node, one, its)
            keep(flow.dims(other)[len(before) :], EXTENT)
        if isinstance(results, torch.Tensor):
            return (*before, *new_extents(flow, source, results, rank))
        return [(*before, *new_extents(flow, source, result, rank)) for result in results]

    return rule


def pixel_shuffle(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """channels x r x r, height, width -> channels, height x r, width x r"""
    source, block = arguments["self"], arguments["upscale_factor"] ** 2
    *rest, channels, _, _ = flow.dims(source)
    found = regroup([channels], [size_of(channels) // block, block])
    if found is None:
        return BORDERS
    keep(found[1], EXTENT)
    return (*rest, found[0], *new_extents(flow, source, node.meta["val"], 2))


def pixel_unshuffle(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    source, block = arguments["self"], arguments["downscale_factor"] ** 2
    *rest, channels, _, _ = flow.dims(source)
    return (*rest, (*channels, *fresh(block, EXTENT)), *new_extents(flow, source, node.meta["val"], 2))


def patches(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """im2col: channels, height, width -> channels x window, positions"""
    source, shape = arguments["self"], node.meta["val"].shape
    *rest, channels, _, _ = flow.dims(source)
    keep(flow.dims(source)[-2:], EXTENT)
    window = fresh(shape[-2] // size_of(channels), EXTENT)
    return (*rest, (*channels, *window), fresh(shape[-1], EXTENT))


def folded(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """col2im: channels x window, positions -> channels, height, width"""
    source, shape = arguments["self"], node.meta["val"].shape
    *rest, columns, positions = flow.dims(source)
    found = regroup([columns], [shape[-3], size_of(columns) // shape[-3]])
    if found is None:
        return BORDERS
    keep((found[1], positions), EXTENT)
    return (*rest, found[0], *(fresh(size, EXTENT) for size in shape[-2:]))


def sliding(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Tensor.unfold: windows along one dimension, which become the last one."""
    dims, shape = list(flow.dims(arguments["self"])), node.meta["val"].shape
    place = arguments["dimension"] % len(dims)
    keep(dims[place], f"{at(node)} makes windows of its positions")
    dims[place] = fresh(shape[place], EXTENT)
    return (*dims, fresh(shape[-1], EXTENT))


def sampled(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """grid_sample: input [N, C, *extents] at the positions grid [N, *new extents, rank]."""
    source, grid = arguments["input"], flow.dims(arguments["grid"])
    rows, channels, *_ = flow.dims(source)
    flow.align(node, grid[0], rows)
    keep(grid[1:], f"{at(node)} takes it for positions of a picture")
    flow.vanishes(node, flow.zeros(source))
    return (rows, channels, *new_extents(flow, source, node.meta["val"], len(grid) - 2))


def affine_grid(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """theta [N, rank, rank + 1] -> positions [N, *extents, rank]; of `size`, the number of channels says nothing."""
    rows, *others = flow.dims(arguments["theta"])
    keep(others, f"{at(node)} takes it for a map of a picture")
    return (rows, *(fresh(size, EXTENT) for size in node.meta["val"].shape[1:]))


def regions(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """roi_align and roi_pool: [N, C, H, W] and boxes [K, 5] -> [K, C, height, width]"""
    source, boxes = arguments["input"], flow.dims(arguments["rois"])
    rows, channels, *_ = flow.dims(source)
    keep((rows, boxes[1:]), f"{at(node)} takes regions of its pictures")
    results = node.meta["val"]
    if isinstance(results, torch.Tensor):
        return (boxes[0], channels, *new_extents(flow, source, results, 2))
    return [(boxes[0], channels, *new_extents(flow, source, result, 2)) for result in results]


def spectrum(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """A Fourier transform along some dimensions, which are kept; the others pass."""
    source, shape = node.all_input_nodes[0], node.meta["val"].shape
    dims, wanted = list(flow.dims(source)), arguments["dim"]
    sizes: Sequence[int] | None = arguments.get("s")
    if not wanted and wanted != 0 and sizes:
        wanted = list(range(-len(sizes), 0))
    for place in places_of(wanted, len(dims)):
        keep(dims[place], f"{at(node)} combines all of its positions")
        dims[place] = fresh(shape[place], EXTENT)
    return tuple(dims)


def short_spectra(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """stft and istft: a signal [..., length] and its spectra [..., frequencies, times] (, 2 where they are real)."""
    source, example = node.all_input_nodes[0], node.meta["val"]
    before = [dim for dim in flow.dims(source)[:1] if len(example.shape) > 1 and example.shape[0] == size_of(dim)]
    keep([flow.values[tensor] for tensor in node.all_input_nodes], f"{at(node)} combines all of its positions")
    return (*before, *(fresh(size, EXTENT) for size in example.shape[len(before) :]))
