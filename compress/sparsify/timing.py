"""Times layers within their network, dense and sparse in turns.

A layer that is timed by itself keeps its weights in the processor's caches, which in its network the other layers push
out of them. So the whole network runs, and hooks note how long each layer takes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.inputs import Inputs
from compress.wording import count_of

_SECONDS = 1.0
"""For all rounds of one comparison, unless the fewest of them take longer."""

_WARM_UP, _FEWEST, _MOST = 3, 9, 101
"""Rounds: those that do not count, and bounds of those that do."""

LAYER_MARGIN, NETWORK_MARGIN = 1.1, 1.05
"""How many times as fast sparse must be, so that noise does not turn a gain into a loss."""

WHOLE = "the network"
"""Its name among those of its layers."""

_EXACT = 1e-6
"""Seconds that a clock must be able to tell apart."""

Swaps = Mapping[nn.Module, nn.Module]
Times = Mapping[str, float]


@dataclass(frozen=True)
class Pair:
    """Milliseconds in each round, as `clock` counts them."""

    dense: tuple[float, ...]
    sparse: tuple[float, ...]

    @property
    def medians(self) -> tuple[float, float]:
        return median(self.dense), median(self.sparse)

    def gains(self, margin: float) -> bool:
        """Whether sparse is faster by the margin in the median round, and faster at all in three rounds of four."""
        ratios = sorted(dense / sparse for dense, sparse in zip(self.dense, self.sparse, strict=True))
        return median(ratios) >= margin and ratios[len(ratios) // 4] > 1.0


def in_turns(holder: nn.ModuleList, batch: Inputs, swaps: Swaps, names: Mapping[nn.Module, str]) -> dict[str, Pair]:
    """Milliseconds of the network in `holder`, and of each layer in `names` that is called both dense and sparse.

    Args:
        swaps: the sparse layer of each dense one. names: of dense layers.

    Raises:
        InputError: the network does not run on the batch.
    """
    back = {sparse: dense for dense, sparse in swaps.items()}
    named = [(name, layer) for dense, name in names.items() for layer in (dense, swaps[dense])]
    rounds: list[tuple[Times, Times]] = []
    start = time.perf_counter()
    with _timed(named) as found:
        while len(rounds) < _WARM_UP + _FEWEST or (len(rounds) < _MOST and time.perf_counter() - start < _SECONDS):
            times = []
            for placed in (back, swaps):
                swap(holder, placed)
                found.clear()
                found[WHOLE] = _milliseconds(holder[0], batch)
                times.append(dict(found))
            rounds.append((times[0], times[1]))
    swap(holder, back)
    pairs = rounds[_WARM_UP:]
    both = pairs[0][0].keys() & pairs[0][1].keys()
    return {
        name: Pair(tuple(dense[name] for dense, _ in pairs), tuple(sparse[name] for _, sparse in pairs))
        for name in both
    }


def clock() -> Callable[[], float]:
    """With one thread its own time, so that other processes do not count; else the time that passes."""
    alone = torch.get_num_threads() == 1 and time.get_clock_info("thread_time").resolution <= _EXACT
    return time.thread_time if alone else time.perf_counter


def swap(holder: nn.Module, swaps: Swaps) -> None:
    """Put other modules in the places of some, wherever these are."""
    for module in list(holder.modules()):
        for name, child in module._modules.items():
            if child is not None and child in swaps:
                module._modules[name] = swaps[child]


def _milliseconds(network: nn.Module, batch: Inputs) -> float:
    given = batch.mapped(Tensor.clone)  # a layer may write into its input
    now = clock()
    start = now()
    try:
        given.call(network)
    except Exception as error:
        raise InputError(
            f"example: the network does not run on {count_of(batch.rows, 'sample')} of it: {error}"
        ) from error
    return 1e3 * (now() - start)


@contextmanager
def _timed(layers: Iterable[tuple[str, nn.Module]]) -> Iterator[dict[str, float]]:
    """Milliseconds of the calls of each layer, by name; only of those that are called."""
    found: dict[str, float] = {}
    started: dict[str, float] = {}
    handles, now = [], clock()
    for name, layer in layers:

        def start(*_: Any, name: str = name) -> None:
            started[name] = now()

        def end(*_: Any, name: str = name) -> None:
            found[name] = found.get(name, 0.0) + 1e3 * (now() - started[name])

        handles += [layer.register_forward_pre_hook(start), layer.register_forward_hook(end)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
