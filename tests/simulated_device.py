"""A device that is simulated in a computer's own memory, to see without a GPU what the code would do on one.

Tensors of the device are computed as on the CPU, to the same bits. As on a CUDA device, an operator refuses tensors of
both devices together, and Python waits for the device wherever it asks for a value: a number, a tensor whose shape
depends on values, a copy from one device to the other that blocks. `SimulatedDevice` counts these places, or forbids
them. tests/test_simulated_device.py compares what waits with torch's fake tensors of CUDA.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "lazy"
"""A device type of torch that needs no driver."""

COPY = "a copy between devices"
ATEN = torch.ops.aten
INDEXING = {ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_}
TELLING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""The tags of operators whose result Python has to see: a number, or a shape."""


class WaitedError(AssertionError):
    """Something waited for the device where it is forbidden."""


class DeviceMismatchError(AssertionError):
    """An operator was called with tensors of both devices."""


class OnDevice(Tensor):
    """A tensor of the device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME),
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnDevice({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("a tensor of the simulated device is used outside of `with SimulatedDevice()`")


class SimulatedDevice(TorchDispatchMode):
    """Within the block, `tensor.to(NAME)` and `module.to(NAME)` move to the device.

    waits: how often Python waited for the device, by what it waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._forbidden = False

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Within the block, whatever waits raises `WaitedError`."""
        self._forbidden = True
        try:
            yield
        finally:
            self._forbidden = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        started_there = any(isinstance(tensor, OnDevice) for tensor in given)
        ends_there = started_there
        if kwargs.get("device") is not None:
            ends_there = torch.device(kwargs["device"]).type == NAME
            kwargs["device"] = torch.device("cpu")
        self._look(func, args, kwargs, given, started_there, ends_there)
        plain_args, plain_kwargs = tree_map_only(OnDevice, lambda tensor: tensor.held, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if func.overloadpacket is ATEN.copy_:
            return args[0]
        if not ends_there:
            return result
        result = tree_map_only(Tensor, OnDevice, result)
        return return_and_correct_aliasing(func, args, kwargs, result) if started_there else result

    def _look(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        given: Sequence[Tensor],
        started_there: bool,
        ends_there: bool,
    ) -> None:
        """Note what waits, and refuse what no device does."""
        packet = func.overloadpacket
        mixed = started_there and any(not isinstance(tensor, OnDevice) and tensor.dim() for tensor in given)
        if packet in (ATEN._to_copy, ATEN.copy_):
            crosses = mixed if packet is ATEN.copy_ else started_there != ends_there
            # The third argument of `copy_` is `non_blocking`.
            if crosses and not (kwargs.get("non_blocking") or True in args[2:]):
                self._note(COPY)
        elif started_there and packet in INDEXING:
            indices = [index for index in args[1] if isinstance(index, Tensor)]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self._note("an index of bools")
            if any(not isinstance(index, OnDevice) for index in indices):
                self._note(COPY)
        elif mixed:
            raise DeviceMismatchError(f"{func}: tensors of the CPU and of the device")
        elif started_there and TELLING & set(func.tags):
            self._note(str(packet).removeprefix("aten."))

    def _note(self, what: str) -> None:
        self.waits[what] += 1
        if self._forbidden:
            raise WaitedError(f"Python would wait for the device: {what}")
