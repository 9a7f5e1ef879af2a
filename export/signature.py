"""What a network takes and gives, as the input contract describes it: names, types, and sizes or their names."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from compress.dynamic import BATCH_NAME, Dynamic, sizes_of
from compress.export.interface import Interface, called_with_tensors, interface, named_outputs
from compress.graph.untouched import untouched
from compress.inputs import Inputs
from compress.results import TensorContract

Shapes = list[tuple[int, ...]]
"""Of the outputs of one call."""


def signature(
    model: nn.Module, example: object, dynamic: Dynamic | None = None
) -> tuple[list[TensorContract], list[TensorContract]]:
    """(inputs, outputs) of every file of the network; what varies is found by calls of other sizes.

    Args:
        example: whatever the network is called with.
        dynamic: names of dimensions that vary beside the batch.

    Raises:
        InputError: `example` is not a call, or `dynamic` does not fit it.
        UnsupportedModelError: the network returns no tensor.
    """
    called = interface(model, example, dynamic)
    inputs = [
        _described(name, tensor, [varying.get(dim, size) for dim, size in enumerate(tensor.shape)])
        for name, tensor, varying in zip(called.names, called.example.tensors, called.varying, strict=True)
    ]
    with untouched(model) as network:
        outputs = _outputs(network, called, called.example.few())
        names = list(outputs)
        sizes = sizes_of(called.example.few(), called.varying)
        found: list[tuple[dict[str, int], Shapes]] = [(sizes, _shapes(outputs))]
        for other in _others(called, sizes):
            try:
                found.append((other, _shapes(_outputs(network, called, called.at(other)))))
            except Exception:  # a network of fixed sizes raises whatever it likes; then nothing is known of them
                continue
    return inputs, [
        _described(name, tensor, [_size(found, place, dim) for dim in range(tensor.ndim)])
        for place, (name, tensor) in enumerate(zip(names, outputs.values(), strict=True))
    ]


def _described(name: str, tensor: Tensor, shape: Sequence[int | str | None]) -> TensorContract:
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(shape)}


def _outputs(network: nn.Module, called: Interface, given: Inputs) -> dict[str, Tensor]:
    leaves = tree_flatten_with_path(called_with_tensors(network, given))[0]
    tensors = {path: leaf for path, leaf in leaves if isinstance(leaf, Tensor)}
    names = named_outputs(list(tensors), [*called.names, *network.state_dict()])
    return dict(zip(names, tensors.values(), strict=True))


def _shapes(outputs: Mapping[str, Tensor]) -> Shapes:
    return [tuple(tensor.shape) for tensor in outputs.values()]


def _others(called: Interface, sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """One name at a time with another size, so that the sizes that follow from it show."""
    for name, size in sizes.items():
        step = 1 if name == BATCH_NAME else called.steps.get(name, 1)
        yield {**sizes, name: size + step}


def _size(found: Sequence[tuple[Mapping[str, int], Shapes]], place: int, dim: int) -> int | str | None:
    """A dimension of an output: its size where all calls agree, else the name that has its size in all of them."""
    if any(len(shapes) <= place or len(shapes[place]) <= dim for _, shapes in found):
        return None
    there = [shapes[place][dim] for _, shapes in found]
    if len(set(there)) == 1:
        return there[0]
    return next((name for name in found[0][0] if [sizes[name] for sizes, _ in found] == there), None)
