"""`StandIn`: a tensor with sizes but no data, which replaces another one while a network is traced."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import _disable_current_modes

META = torch.device("meta")


class StandIn(Tensor):
    """A tensor that looks to the network's code like the one it replaces, with the same sizes, type and device.

    bare: a tensor of the device "meta", on which operators are run to find out the sizes of their results.
    node: its node in the graph; None for a constant that no recorded operator has used yet.
    value: its data, if it depends on neither the inputs nor the network's own tensors.
    recipe: the operator and arguments that made a constant, from which it is recorded if it is written into.
    """

    bare: Tensor
    node: fx.Node | None
    value: Tensor | None
    recipe: Any

    @staticmethod
    def __new__(
        cls, like: Tensor, device: torch.device, node: fx.Node | None, value: Tensor | None = None, recipe: Any = None
    ) -> "StandIn":
        made: StandIn = Tensor._make_wrapper_subclass(
            cls,
            like.shape,
            strides=like.stride(),
            storage_offset=like.storage_offset(),
            dtype=like.dtype,
            layout=like.layout,
            device=device,
        )
        made.bare = (
            like if like.is_meta else torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=META)
        )
        made.node, made.value, made.recipe = node, value, recipe
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} of a tensor that was kept from a trace, which has ended")

    def tolist(self) -> Any:
        return [one.tolist() for one in self] if self.ndim else self.item()

    def numpy(self, *, force: bool = False) -> Any:
        with _disable_current_modes():
            return self._data().numpy(force=force)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return self._data().__array__(*args, **kwargs)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Any) -> Tensor:
        memo[id(self)] = found = self.clone()
        return found

    def _data(self) -> Tensor:
        if self.value is None:
            raise NotImplementedError("numpy reads its values, which depend on the inputs")
        return self.value

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"StandIn({list(self.shape)}, {self.dtype})"


def without_data(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
