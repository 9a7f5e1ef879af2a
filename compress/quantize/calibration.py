"""The samples that ranges of activations are measured on: checked once, then read batch by batch."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.dynamic import BATCH_NAME
from compress.errors import DataError, InputError
from compress.export.latency import DTYPES
from compress.export.onnx_network import Feed

Feeds = Callable[[], Iterable[Mapping[str, NDArray[Any]]]]
"""Each call gives the same inputs of a file from the start, batch by batch."""


@dataclass(frozen=True)
class Samples:
    """The first batches of `feeds`, as many as there are samples asked for.

    sizes: those of the first batch of the dimensions that vary beside the batch, by name.
    first: the first batch.
    """

    feeds: Feeds
    batches: int
    sizes: Mapping[str, int]
    first: Feed

    def __iter__(self) -> Iterator[Feed]:
        return (dict(feed) for feed in islice(iter(self.feeds()), self.batches))


def samples_of(feeds: Feeds, count: int, inputs: list[Any], path: object) -> Samples:
    """Read `count` samples, or all if there are fewer, and compare them with what a file takes.

    Args:
        inputs: onnxruntime's description of the file's inputs.

    Raises:
        DataError: there is no sample, or one with NaN or infinite values.
        InputError: names, types or shapes are not those of the file's inputs.
    """
    first: Feed | None = None
    batches = seen = 0
    for feed in feeds():
        _require_fitting(feed, inputs, f"{path}, calibration batch {batches}")
        first = dict(feed) if first is None else first
        batches, seen = batches + 1, seen + rows(feed, inputs)
        if seen >= count:
            break
    if first is None or not seen:
        raise DataError(f"{path}: the batches of calibration data have no sample; give a few hundred training samples")
    return Samples(feeds, batches, _sizes(first, inputs), first)


def rows(feed: Mapping[str, NDArray[Any]], inputs: list[Any]) -> int:
    """The number of samples of a batch: the size of the dimension called `batch`, or else of the first one."""
    places = [(value.name, value.shape.index(BATCH_NAME)) for value in inputs if BATCH_NAME in value.shape]
    name, place = (places or [(value.name, 0) for value in inputs if value.shape] or [("", 0)])[0]
    return feed[name].shape[place] if name else 1


def fixed_batch(inputs: list[Any]) -> int | None:
    """The number of samples that a file takes, if it takes no other."""
    first = [value.shape[0] for value in inputs if value.shape]
    named = any(BATCH_NAME in value.shape for value in inputs)
    return None if named or not all(isinstance(size, int) for size in first) else next(iter(first), None)


def _sizes(feed: Feed, inputs: list[Any]) -> dict[str, int]:
    named = {size: feed[value.name].shape[place] for value in inputs for place, size in enumerate(value.shape)}
    return {name: size for name, size in named.items() if isinstance(name, str) and name != BATCH_NAME}


def _require_fitting(feed: Mapping[str, NDArray[Any]], inputs: list[Any], what: str) -> None:
    wanted = {value.name: value for value in inputs}
    if feed.keys() != wanted.keys():
        raise InputError(
            f"{what}: found the inputs {', '.join(sorted(feed)) or 'none'}; the file takes {', '.join(wanted)}"
        )
    for name, array in feed.items():
        value, array = wanted[name], np.asarray(array)
        dtype = DTYPES.get(value.type)
        if dtype is None or array.dtype != dtype:
            raise InputError(
                f"{what}: {name} holds {array.dtype}, and the file takes {value.type}; give what the network is called "
                "with, such as images in floats and normalised"
            )
        fits = len(array.shape) == len(value.shape) and all(
            not isinstance(size, int) or size == found for size, found in zip(value.shape, array.shape, strict=True)
        )
        if not fits:
            raise InputError(f"{what}: {name} has the shape {list(array.shape)}, and the file takes {value.shape}")
        # Additive masks, beside other inputs, are made of -inf.
        finite = np.isfinite(array) | (np.isneginf(array) if len(feed) > 1 and array.dtype.kind == "f" else False)
        if not np.all(finite):
            raise DataError(f"{what}: {name} has NaN or infinite values; fix or remove them")
