"""`OnnxNetwork`: an ONNX file in the place of a network, wherever one is only called, as metrics do."""

import os
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from compress.batches import LABELS
from compress.errors import InputError
from compress.export.latency import DTYPES, open_session
from compress.files.foreign import reading
from compress.inputs import Inputs

Feed = dict[str, NDArray[Any]]
"""The inputs of one run of a file, by name."""


class OnnxNetwork(nn.Module):
    """Called like the network that the file was made of; onnxruntime computes, on the CPU, without gradients.

    `inputs` is onnxruntime's description of what the file takes.

    Tensors given by keyword are the inputs of that name, all others the remaining inputs, in the file's order. Labels
    are left out where the file does not take them.

    Args:
        like: an output of the network, for files with several outputs: the file's are returned in the same containers.
            Without it, or where torch does not know the containers, they are a dict by name, whose entries are
            attributes too.

    Raises:
        InputError: the file does not exist, or onnxruntime cannot run it.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1, like: object = None) -> None:
        super().__init__()
        self._path, self._like = os.fspath(path), like
        self._session = open_session(path, threads)
        self.inputs: list[Any] = self._session.get_inputs()
        self._takes = {value.name: DTYPES.get(value.type) for value in self.inputs}
        self._gives = [value.name for value in self._session.get_outputs()]

    def feed(self, given: Inputs) -> Feed:
        """The arrays that a call represents.

        Raises:
            InputError: there are more or fewer tensors than the file has inputs.
        """
        named = {name: value for name, value in given.kwargs.items() if name in self._takes}
        others = {name: value for name, value in given.kwargs.items() if name not in named and name != LABELS}
        left = [name for name in self._takes if name not in named]
        tensors = Inputs(given.args, others).tensors
        if len(left) != len(tensors) or not all(isinstance(value, Tensor) for value in named.values()):
            raise InputError(
                f"{self._path} takes {_listed(self._takes)}, and is given {len(tensors) + len(named)} tensors"
            )
        found = named | dict(zip(left, tensors, strict=True))
        return {name: _array(found[name], dtype) for name, dtype in self._takes.items()}

    def run_feed(self, feed: Feed) -> list[NDArray[Any]]:
        """The outputs, in the file's order. Raises InputError where onnxruntime does not take the inputs."""
        with reading(InputError, f"{self._path}: onnxruntime does not run it on these inputs"):
            return list(self._session.run(None, feed))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._returned([torch.from_numpy(array) for array in self.run_feed(self.feed(Inputs(args, kwargs)))])

    def _returned(self, outputs: list[Tensor]) -> Any:
        leaves, structure = tree_flatten(self._like)
        if sum(isinstance(leaf, Tensor) for leaf in leaves) == len(outputs):
            left: Iterator[Tensor] = iter(outputs)
            return tree_unflatten([next(left) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)
        return outputs[0] if len(outputs) == 1 else _Named(zip(self._gives, outputs, strict=True))


class _Named(dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _array(tensor: Tensor, dtype: Any) -> NDArray[Any]:
    """The tensor's values, in the type of the file's input where that is of the same sort: networks cast, files don't.

    An id in 32 bits is one in 64 bits, but pixels from 0 to 255 are not a network's floats.
    """
    array = np.asarray(tensor.detach().cpu().numpy())
    same_sort = dtype is not None and array.dtype.kind == np.dtype(dtype).kind
    return array.astype(dtype, copy=False) if same_sort else array


def _listed(names: Collection[str]) -> str:
    return f"the input{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"
