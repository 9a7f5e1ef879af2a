"""Networks that draw random numbers in evaluation mode: equal seeds for all runs, and the operators that draw."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils._pytree import tree_leaves

from compress.graph.eager_mode import EagerMode

_SEED = 0


@contextmanager
def seeded() -> Iterator[None]:
    """The same random numbers each time, from torch, Python and numpy; their states are restored afterwards."""
    devices = _devices()
    own, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would also seed the devices that are not in use yet.
        torch.default_generator.manual_seed(_SEED)
        if devices:
            torch.cuda.manual_seed_all(_SEED)
        random.seed(_SEED)
        np.random.seed(_SEED)
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(arrays)


def state() -> tuple[object, ...]:
    """The state of all generators; it differs if a number has been drawn."""
    arrays: Any = np.random.get_state()
    return (
        bytes(torch.default_generator.get_state().numpy()),
        *(bytes(torch.cuda.get_rng_state(device).numpy()) for device in _devices()),
        random.getstate(),
        arrays[1].tobytes(),
        arrays[2],
    )


def _devices() -> list[int]:
    """Accelerators in use; asking others for their state would start them."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Draw:
    """count: how many numbers the operator draws. layer: the module whose code calls it, "" for the network's own."""

    operator: str
    layer: str
    count: int

    def __str__(self) -> str:
        return f"{self.operator} in " + (repr(self.layer) if self.layer else "the network's own forward")


def draws_of(model: nn.Module, run: Callable[[], object]) -> list[Draw]:
    """The random numbers that torch's operators draw when `run` runs the model, in order."""
    names = {module: name for name, module in model.named_modules()}
    recorder = _Recorder()
    before = hooks.register_module_forward_pre_hook(lambda module, _: recorder.layers.append(names.get(module, "")))
    after = hooks.register_module_forward_hook(lambda *_: recorder.leave(), always_call=True)
    try:
        with seeded(), recorder:
            run()
    finally:
        before.remove()
        after.remove()
    return recorder.found


class _Recorder(EagerMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[str] = []
        self.found: list[Draw] = []

    def leave(self) -> None:
        self.layers.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags and not _switched_off(func, args):
            layer = next((name for name in reversed(self.layers) if name), "")
            count = next((leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)), 0)
            self.found.append(Draw(func._schema.name.rpartition("::")[2], layer, count))
        return result


def _switched_off(func: Any, args: Any) -> bool:
    """An attention whose dropout drops nothing has the tag too."""
    names = [argument.name for argument in func._schema.arguments]
    return "dropout_p" in names[: len(args)] and args[names.index("dropout_p")] == 0.0
