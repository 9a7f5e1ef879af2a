"""What a file takes and gives: a named input for each tensor of a call, and a named output for each tensor returned.

Files hold no classes and no plain values. So a network is exported as a module that takes the tensors of the call
alone, and returns tensors in dicts, lists and tuples, whatever the network's own outputs are made of.
"""

import dataclasses
import inspect
import keyword
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import TreeSpec, tree_flatten, tree_flatten_with_path, tree_unflatten

from compress.dynamic import BATCH_NAME, Dynamic, resized, sizes_of, steps_of, varying_dims
from compress.errors import UnsupportedModelError
from compress.graph.real_pass import runs
from compress.inputs import Inputs, inputs_of
from compress.proof.outputs import outputs_of

_TRACED_BATCH, _LEAST = 2, 3
"""Sizes in a trace: torch.export takes 1 for a constant, and equal sizes for the same dimension."""


@dataclass(frozen=True)
class Interface:
    """The tensors that a network is called with, as the inputs of a file.

    names: `input` for a tensor that is given alone, else the arguments of `forward`; see `Inputs.names`.
    varying: the names of the dimensions of each tensor that vary.
    steps: what sizes that vary can grow by, by name; see `steps_of`.
    """

    example: Inputs
    names: Sequence[str]
    varying: Sequence[Mapping[int, str]]
    steps: Mapping[str, int]

    @property
    def by_position(self) -> int:
        """How many of the tensors are given by position; the others are given by keyword."""
        return sum(isinstance(leaf, Tensor) for leaf in tree_flatten(tuple(self.example.args))[0])

    def named(self, given: Inputs) -> dict[str, Tensor]:
        """The tensors of another call by the names of this one's."""
        return dict(zip(self.names, given.tensors, strict=True))

    def call(self, tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """(args, kwargs) with which the exported module is called."""
        several = list(tensors.items())
        return tuple(tensor for _, tensor in several[: self.by_position]), dict(several[self.by_position :])

    def at(self, sizes: Mapping[str, int]) -> Inputs:
        """The call with other sizes of named dimensions, the batch among them."""
        return resized(self.example, self.varying, sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """The example's sizes of the dimensions that vary, except the batch."""
        found = sizes_of(self.example, self.varying)
        return {name: size for name, size in found.items() if name != BATCH_NAME}

    def others(self, most: Mapping[str, int]) -> Iterator[Inputs]:
        """The call at other sizes of the dimensions that vary: half, and twice as large where `most` allows it."""
        smaller, larger = {}, {}
        for name, size in self.sizes.items():
            step = self.steps[name]
            smaller[name] = max(min(size, 2 * step), size - (size - size // 2) // step * step)
            larger[name] = size + max(0, min(size + step, most.get(name, 2 * size + step) - size)) // step * step
        yield from (self.at(sizes) for sizes in (smaller, larger) if sizes != self.sizes)

    def traced(self) -> Inputs:
        """The call for a trace: zeros, since a program keeps its inputs."""
        sizes = {name: size + max(0, _LEAST * self.steps[name] - size) for name, size in self.sizes.items()}
        return self.at({**sizes, BATCH_NAME: _TRACED_BATCH}).mapped(torch.zeros_like)


def interface(model: nn.Module, example: object, dynamic: Dynamic | None = None) -> Interface:
    """Describe how `model` is called.

    Args:
        example: whatever the network is called with; see `compress.inputs`.
        dynamic: names of dimensions that vary beside the batch (see `compress.dynamic`).

    Raises:
        InputError: `example` is not a call, or `dynamic` does not fit it.
    """
    given = inputs_of(example)
    names = [_identifier(name) for name in given.names(model)]
    if len(given.args) == 1 and isinstance(given.args[0], Tensor) and not given.kwargs:
        names = ["input"]
    batches = [given.batch_dim_of(tensor) for tensor in given.tensors]
    further = varying_dims(model, given, dynamic)
    if given.rows > 2 and not runs(model, given.few()):
        given = replace(given, whole=True)
    few = given.few()
    steps = steps_of(sizes_of(few, further), lambda sizes: runs(model, resized(few, further, sizes)))
    varying = [
        {**({} if dim is None else {dim: BATCH_NAME}), **dims} for dim, dims in zip(batches, further, strict=True)
    ]
    return Interface(given, names, varying, steps)


def _identifier(name: str) -> str:
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"input_{name}"


class Exported(nn.Module):
    """A network under the same names of its parameters, called with the tensors of a call alone.

    It shares the network's modules and tensors, and computes in the mode that the network is in.
    """

    def __init__(self, model: nn.Module, called: Interface) -> None:
        super().__init__()
        shared = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set", "training")
        self.__dict__.update({name: vars(model)[name] for name in shared})
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in called.names])
        leaves, structure = tree_flatten((tuple(called.example.args), dict(called.example.kwargs)))

        def forward(*tensors: Tensor, **named: Tensor) -> Any:
            given = list(signature.bind(*tensors, **named).arguments.values())
            left = iter(given)
            args, kwargs = tree_unflatten(
                [next(left) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure
            )
            return _plain(model(*args, **kwargs), given)

        forward.__signature__ = signature  # type: ignore[attr-defined]
        self.forward = forward


def _plain(output: Any, met: list[Any]) -> Any:
    """An output as tensors in dicts, lists and tuples; no tensor is an input, or there twice.

    Args:
        met: the inputs; tensors and objects are added to it, since objects may refer to each other.
    """
    if isinstance(output, tuple | list) and not hasattr(output, "_fields"):
        found = [_plain(value, met) for value in output]
        return found if isinstance(output, list) else tuple(found)
    known = any(output is other for other in met)
    if isinstance(output, Tensor):
        output = output.clone() if known else output
        met.append(output)
        return output
    parts = {} if known else _parts(output)
    if parts:
        met.append(output)
    inner = {str(key): _plain(value, met) for key, value in parts.items()}
    return {key: value for key, value in inner.items() if _holds_any(value)} or None


def _parts(output: Any) -> Mapping[Any, Any]:
    """The parts of a dict, a dataclass, a named tuple or any other object by name; a plain value has none."""
    if isinstance(output, Mapping):
        return output
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {part.name: getattr(output, part.name) for part in dataclasses.fields(output)}
    if isinstance(output, tuple):
        return dict(zip(output._fields, output, strict=True))  # type: ignore[attr-defined]
    values = isinstance(output, type | nn.Module | torch.SymInt | torch.SymFloat | torch.SymBool)
    return {} if values else getattr(output, "__dict__", {})


def _holds_any(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_flatten(value)[0])


def tensors_in(output: object) -> list[Tensor]:
    """The tensors of an output, of any class, in the order of the file's outputs."""
    return list(outputs_of(output).in_files.tensors.values())


def called_with_tensors(model: nn.Module, given: Inputs) -> Any:
    """What the exported module returns for a call: tensors in dicts, lists and tuples."""
    return _plain(given.call(model), list(given.tensors))


def output_names(program: ExportedProgram, taken: Iterable[str]) -> list[str]:
    """A name for each tensor that a program returns; see `named_outputs`.

    Raises:
        UnsupportedModelError: it returns no tensor.
    """
    spec: TreeSpec = program.call_spec.out_spec
    outputs = program.graph_signature.user_outputs
    paths = [path for path, number in tree_flatten_with_path(tree_unflatten(range(len(outputs)), spec))[0]]
    return named_outputs([path for path, output in zip(paths, outputs, strict=True) if output is not None], taken)


def named_outputs(paths: Iterable[Sequence[Any]], taken: Iterable[str]) -> list[str]:
    """A name for each returned tensor: its keys, joined; `output` for one that has none.

    Args:
        paths: the keys that lead to each tensor.
        taken: names that outputs must not have, those of inputs and weights.

    Raises:
        UnsupportedModelError: there is none.
    """
    kept = [[str(getattr(key, "key", getattr(key, "idx", ""))) for key in path] for path in paths]
    found: list[str] = []
    for word in kept:
        named = bool(word) and not word[0].isdigit()
        name = "_".join(word) if named else "output" if len(kept) == 1 else "_".join(["output", *word])
        while name in {*taken, *found}:
            name += "_output"
        found.append(name)
    if not found:
        raise UnsupportedModelError("the network returns no tensor, so a file of it would have no output")
    return found
