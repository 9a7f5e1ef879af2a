"""Writes `.safetensors`: the weights by name, and the metadata from which `compress.load` rebuilds a slim network."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

from compress.errors import InputError, OutputError
from compress.files import rounding
from compress.files.atomic import require_path
from compress.files.checkpoint import write_weights
from compress.graph.network import require_unwrapped, uncompiled
from compress.graph.twin import copied
from compress.options import check, shown
from compress.slimming.edits import edits_to_json

_ADDED = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""Types with an addition; those of 8 bits have none."""


def safetensors(model: nn.Module, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write the state_dict; `compress.load(path, model=...)` reads it back.

    Args:
        model: a network without pruning hooks; the edits of `compress.slim` go into the metadata.
        metadata: more text by key. The keys `shape_edits`, `softprune.sparse` and `softprune.int8` are reserved.

    Raises:
        InputError: the model still has pruning hooks.
        OutputError: `path` does not end in .safetensors, or cannot be written.
    """
    _write(model, path, metadata)


def sparse(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    int8: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the state_dict without its zeros; `compress.load(path, model=...)` reads it back, to the last bit.

    Each tensor, those of convolutions included, has its nonzero values and their places, as bits or as the numbers of
    zeros between them, whichever is smaller; it is dense where that is smaller. At 95 % zeros the file is some 16 times
    as small. A weight of -0.0 becomes 0.0. Other readers of safetensors see the packed values: docs/sparse.md has the
    format.

    Args:
        model, metadata: as for `safetensors`; a network of `compress.sparse` gives the same file as the dense one.
        int8: round the weights of two or more dimensions to 8 bits, with a scale for each row (each index of the
            first dimension). The file is then not equal to the network: measure the one that `compress.load` returns.
            A weight differs by at most half of its row's scale, which is the row's largest magnitude divided by 127.

    Raises:
        InputError, OutputError: as `safetensors`.
    """
    check("int8", int8, bool)
    _write(model, path, metadata, sparse=True, int8=int8)


def rounded(model: nn.Module) -> nn.Module:
    """The network of the file that `sparse(model, path, int8=True)` writes."""
    entries, text = rounding.rounded(model.state_dict(), _weights(model))
    copy = copied(model)
    copy.load_state_dict(rounding.restored(entries, text, sys.maxsize, ""))
    return copy


def _weights(model: nn.Module) -> list[str]:
    """What is not a buffer; the weight of a sparse layer is no parameter, either."""
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return [name for name in model.state_dict() if name not in buffers]


def _write(
    model: nn.Module,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None,
    *,
    sparse: bool = False,
    int8: bool = False,
) -> None:
    model = uncompiled(model)
    require_plain(model)
    require_path("path", path)
    require_metadata(metadata)
    if Path(path).suffix != ".safetensors":
        raise OutputError(f"{path} must end in .safetensors")
    edits = getattr(model, "shape_edits", ())
    more = {"shape_edits": edits_to_json(edits)} if edits else {}
    tensors = model.state_dict()
    if sparse:  # a mask of torch.nn.utils.prune leaves -0.0, which is a value to the codes
        tensors = {name: tensor + 0.0 if tensor.dtype in _ADDED else tensor for name, tensor in tensors.items()}
    write_weights(tensors, path, {**(metadata or {}), **more}, sparse=sparse, int8=_weights(model) if int8 else ())


def require_metadata(metadata: object) -> None:
    """Raise InputError unless it is text by key, or None."""
    text = isinstance(metadata, Mapping) and all(isinstance(each, str) for item in metadata.items() for each in item)
    if metadata is not None and not text:
        raise InputError(f"metadata: found {shown(metadata)}; expected a dict of text by key")


def require_plain(model: nn.Module) -> None:
    """Refuse a model that is not ready to become a file.

    Raises:
        InputError: it has pruning hooks, so that a file would hold `weight_orig` and `weight_mask`, twice the size; or
            it is not on the CPU, so that a file would run nowhere else.
    """
    require_unwrapped(model)
    if prune.is_pruned(model):
        raise InputError(
            f"{type(model).__name__} still has pruning masks beside its weights: "
            "call finalize() of its pruner, or torch.nn.utils.prune.remove, before exporting it"
        )
    devices = {str(parameter.device) for parameter in model.parameters()} - {"cpu"}
    if devices:
        raise InputError(f"{type(model).__name__} is on {', '.join(devices)}: export model.cpu()")
