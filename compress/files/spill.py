"""Tensors that a run needs much later, put into a file without a name, where they take no memory."""

import copy
import os
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from compress.files.atomic import archive
from compress.graph.twin import twin

LARGE = 64 << 20
"""Fewer bytes than these are kept in memory, since writing them would take too long for the gain."""


class Aside:
    """Copies of tensors by name, as they are now. The file is in the folder for temporary files (TMPDIR).

    Tensors that do not fit there, or are more than plain tensors, are kept in memory.
    """

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._file = _written(tensors) if _worth_it(tensors) else None
        if self._file is not None:
            weakref.finalize(self, self._file.close)
        self._tensors = copy.deepcopy(tensors) if self._file is None else {}

    def tensors(self) -> Mapping[str, Any]:
        """Copies, as new as if they had been made by `copy.deepcopy`."""
        if self._file is None:
            return copy.deepcopy(self._tensors)
        self._file.seek(0)
        found: Mapping[str, Any] = torch.load(self._file, weights_only=True)
        return found

    def mapped(self) -> Mapping[str, Any]:
        """As `tensors`, for a moment: they remain in the file, where the system can map one without a name."""
        path = "" if self._file is None else f"/proc/self/fd/{self._file.fileno()}"
        if not os.path.exists(path):
            return self.tensors()
        found: Mapping[str, Any] = torch.load(path, weights_only=True, mmap=True)
        return found


class Shelved:
    """A network as it is now, which `copy` gives copies of."""

    def __init__(self, model: nn.Module) -> None:
        held = [tensor for tensor in {*model.parameters(), *model.buffers()} if _is_plain(tensor)]
        bare = {tensor: _like(tensor, torch.empty_like(tensor, device="meta")) for tensor in held}
        self._aside = Aside({str(number): tensor.detach() for number, tensor in enumerate(held)})
        self._bare, self._stand_ins = twin(model, bare), list(bare.values())

    def copy(self) -> nn.Module:
        fresh = self._aside.tensors().values()
        made = {bare: _like(bare, tensor) for bare, tensor in zip(self._stand_ins, fresh, strict=True)}
        return twin(self._bare, made)


def _like(old: Tensor, tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor


def _is_plain(value: object) -> bool:
    return type(value) in (Tensor, nn.Parameter)


def _worth_it(tensors: Mapping[str, Any]) -> bool:
    values = list(tensors.values())
    return all(map(_is_plain, values)) and sum(tensor.nbytes for tensor in values) >= LARGE


def _written(tensors: Mapping[str, Tensor]) -> BinaryIO | None:
    """The file; None where writing failed."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
            with archive(os.dup(file.fileno())) as writer:
                torch.save(tensors, writer)
        except OSError:
            return None
        stack.pop_all()
    return file
