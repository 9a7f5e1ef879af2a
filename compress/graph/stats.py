"""The size of a network: parameters, zeros, multiply-adds, bytes."""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn
from torch.backends import cudnn, mha, mkldnn
from torch.nn.attention import SDPBackend, sdpa_kernel

from compress.graph.eager_mode import EagerMode
from compress.graph.untouched import untouched
from compress.inputs import inputs_of
from compress.results import TensorResult


@dataclass(frozen=True)
class Stats:
    params: int  # entries of all parameters, one that several modules share counted once
    nonzero: int  # those of them that are not exactly 0.0
    macs: int  # multiply-accumulates for one sample; multiplying by a stored zero counts too


class _Operations(EagerMode):
    """What torch's `FlopCounterMode` counts, without the import of torch's compiler.

    count: floating-point operations so far, by torch's formulas; an operator without one counts as its parts.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # imports triton, which training needs not wait for

        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self._formulas = 0, flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.prim.device.default:  # it has no parts, and fails when asked for them
            with self:
                if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                    return result
        result = func(*args, **kwargs)
        if (formula := self._formulas.get(func._overloadpacket)) is not None:
            self.count += formula(*args, **kwargs, out_val=result)
        return result


class FileBytes(TypedDict):
    plain: int
    gzip: int


def measure(model: nn.Module, example: object) -> Stats:
    """Count `model`, run on `example` in evaluation mode; neither is changed.

    Parameters are counted as they are stored, so fold masks first. Multiply-accumulates are those that torch's counter
    knows (matrix products, convolutions, attention, recurrent layers), without elementwise operators.
    """
    given = inputs_of(example)
    with _Operations() as counter, untouched(model) as network, _plain_operators():
        given.call(network)
    parameters = list(model.parameters())
    return Stats(
        params=sum(parameter.numel() for parameter in parameters),
        nonzero=sum(int(parameter.count_nonzero()) for parameter in parameters),
        macs=round(counter.count / 2 / given.rows),
    )


def tensors(masked: nn.Module, slim: nn.Module) -> list[TensorResult]:
    """Every parameter of `masked`: {"name", "shape", "zeros", "slim": its shape in `slim`}.

    "slim" is absent where `slim` has no parameter of that name. Module by module, weights before biases: a parameter
    that was masked would otherwise be last in its module.
    """
    left = {name: list(parameter.shape) for name, parameter in slim.named_parameters()}
    found = list(masked.named_parameters())
    first: dict[str, int] = {}
    for place, (name, _) in enumerate(found):
        first.setdefault(name.rpartition(".")[0], place)
    found.sort(key=lambda entry: (first[entry[0].rpartition(".")[0]], -entry[1].dim()))
    described: list[TensorResult] = [
        {"name": name, "shape": list(parameter.shape), "zeros": parameter.numel() - int(parameter.count_nonzero())}
        for name, parameter in found
    ]
    for tensor in described:
        if tensor["name"] in left:
            tensor["slim"] = left[tensor["name"]]
    return described


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Run attention and recurrent layers as matrix products: the counter knows few fused operators."""
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # that this machine's mkldnn has no TF32
            sdpa_kernel(SDPBackend.MATH),
            mkldnn.flags(enabled=False),
            cudnn.flags(enabled=False),
        ):
            yield
    finally:
        mha.set_fastpath_enabled(fast)


def file_bytes(path: str | Path) -> FileBytes:
    """Size of the file at `path`, as it is and after gzip (level 6), in bytes; read piece by piece."""
    compressor = zlib.compressobj(level=6, wbits=31)  # 31: the window of 2**15 bytes inside gzip's header and trailer
    plain = gzip = 0
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            plain += len(piece)
            gzip += len(compressor.compress(piece))
    return {"plain": plain, "gzip": gzip + len(compressor.flush())}
