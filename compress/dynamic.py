"""Dimensions of a network's inputs that vary, beside the batch, such as the length of a text.

`dynamic={"ids": {1: "length"}, "mask": {1: "length"}}` names them by input (see `Inputs.names`) and dimension, as
torch.onnx does. Dimensions of the same name have the same size in every call.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.inputs import Inputs
from compress.options import shown
from compress.wording import did_you_mean

Dynamic = Mapping[str, Mapping[int, str]]

BATCH_NAME = "batch"
"""What the batch's dimension is called; it varies anyway."""

_HALVINGS = {2, 4, 8, 16, 32, 64}

_EXPECTED = 'expected names by input and dimension, such as {"ids": {1: "length"}}'


def varying_dims(model: nn.Module, given: Inputs, dynamic: Dynamic | None) -> list[dict[int, str]]:
    """For each of `given.tensors`, the names of its dimensions that vary beside the batch.

    Raises:
        InputError: `dynamic` is something else, or names an input or a dimension that there is not.
    """
    names = given.names(model)
    _require(dynamic, dict(zip(names, given.tensors, strict=True)), given)
    return [dict((dynamic or {}).get(name, {})) for name in names]


def _require(dynamic: object, inputs: Mapping[str, Tensor], given: Inputs) -> None:
    if dynamic is None:
        return
    if not isinstance(dynamic, Mapping):
        raise InputError(f"dynamic: found {shown(dynamic)}; {_EXPECTED}")
    sizes: dict[str, int] = {}
    for name, dims in dynamic.items():
        if name not in inputs:
            near = did_you_mean(str(name), inputs)
            raise InputError(f"dynamic: the network has no input {name!r}; its inputs are {', '.join(inputs)}{near}")
        if not isinstance(dims, Mapping):
            raise InputError(f"dynamic: {name}: found {shown(dims)}; {_EXPECTED}")
        shape = list(inputs[name].shape)
        for dim, word in dims.items():
            if type(dim) is not int or not 0 <= dim < len(shape):
                raise InputError(f"dynamic: {name}: its shape is {shape}; found the dimension {shown(dim)}")
            if dim == given.batch_dim_of(inputs[name]):
                raise InputError(f"dynamic: {name}: dimension {dim} counts the samples, and varies anyway")
            if not isinstance(word, str) or not word.isidentifier() or word == BATCH_NAME:
                raise InputError(f"dynamic: {name}: found {shown(word)}; expected a name other than {BATCH_NAME!r}")
            if sizes.setdefault(word, shape[dim]) != shape[dim]:
                raise InputError(f"dynamic: {word!r} is {sizes[word]} and {shape[dim]} in the example; give two names")


def resized(given: Inputs, varying: Sequence[Mapping[int, str]], sizes: Mapping[str, int]) -> Inputs:
    """The call with other sizes of named dimensions; what the example has there is repeated or left out."""
    left = iter(varying)

    def one(tensor: Tensor) -> Tensor:
        for dim, name in next(left).items():
            size = sizes.get(name, tensor.shape[dim])
            tensor = tensor.index_select(dim, torch.arange(size, device=tensor.device) % tensor.shape[dim])
        return tensor

    return given.mapped(one)


def sizes_of(given: Inputs, varying: Sequence[Mapping[int, str]]) -> dict[str, int]:
    """The sizes in the call of the dimensions that vary, by name."""
    pairs = zip(given.tensors, varying, strict=True)
    return {name: tensor.shape[dim] for tensor, names in pairs for dim, name in names.items()}


def steps_of(sizes: Mapping[str, int], runs: Callable[[Mapping[str, int]], bool]) -> dict[str, int]:
    """What each size can grow by: 32 in a network that halves pictures five times and adds them up again; mostly 1.

    Args:
        runs: whether the network takes other sizes, by name.
    """
    found: dict[str, int] = {}
    for name, size in sizes.items():
        steps = sorted({step for step in range(1, size + 1) if size % step == 0} | _HALVINGS)
        found[name] = next((step for step in steps if runs({**sizes, name: size + step})), 1)
    return found


def other_lengths(
    given: Inputs, varying: Sequence[Mapping[int, str]], steps: Mapping[str, int] | None = None
) -> Iterator[Inputs]:
    """Calls at other sizes of the dimensions that vary: smaller and larger ones, odd and even ones.

    Args:
        steps: of each size, by name; see `steps_of`.
    """
    sizes = sizes_of(given, varying)
    for change in range(3 if sizes else 0):
        others = {}
        for name, size in sizes.items():
            step = (steps or {}).get(name, 1)
            others[name] = (size + step, 2 * size, max(1, size - (size - size // 2) // step * step))[change]
        yield resized(given, varying, others)


def fixed(varying: Sequence[Mapping[int, str]]) -> InputError:
    """The error of a network that runs at none of `other_lengths`."""
    names = sorted({name for dims in varying for name in dims.values()})
    return InputError(f"dynamic: the network does not run at other sizes of {', '.join(names)} than the example's")


def alike(given: Inputs) -> list[dict[int, str]]:
    """All dimensions but the batch as if they varied, those of one size together."""
    return [
        {dim: f"size_{size}" for dim, size in enumerate(tensor.shape) if dim != given.batch_dim_of(tensor)}
        for tensor in given.tensors
    ]
