"""softprune: make a trained PyTorch network small, and prove that it stayed the same.

pruner = compress.SoftPruner(model, ["decoder.*"], sparsity=0.9, steps=1000)   # step() in the training loop
small = compress.slim(model, example)                # really smaller; raises unless small(x) == model(x)
compress.export.onnx(small, "small.onnx", example)   # raises unless onnxruntime agrees
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from compress import export as export
    from compress.errors import CompressError as CompressError
    from compress.files.checkpoint import load as load
    from compress.remove.hard import HardPruner as HardPruner
    from compress.remove.soft import SoftPruner as SoftPruner

__version__ = "0.1.0"

__all__ = ["CompressError", "HardPruner", "SoftPruner", "__version__", "export", "load", "slim"]

_HOMES = {
    "CompressError": "compress.errors",
    "HardPruner": "compress.remove.hard",
    "SoftPruner": "compress.remove.soft",
    "load": "compress.files.checkpoint",
}


def slim(
    model: "nn.Module", example: "Tensor", *, tolerance: float = 1e-5, optimizer: "Optimizer | None" = None
) -> "nn.Module":
    """Cut the zeros out of a pruned network; see `compress.slimming.shrink.slim`."""
    from compress.slimming.shrink import slim as cut

    return cut(model, example, tolerance=tolerance, optimizer=optimizer)


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, which `compress --help` and a recipe's mistakes need not wait for.
    if name == "export":
        return import_module("compress.export")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
