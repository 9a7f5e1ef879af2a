"""`Inputs`: what a network is called with, however many arguments that are.

Everything that calls a network takes an `example`: a tensor, a tuple or list of arguments, a dict of keyword
arguments, or `Inputs(args, kwargs)`; `inputs_of` makes one of the others. Arguments may be nested in tuples, lists
and dicts; floats, integers, bools, None and other plain values are passed on as they are.
"""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_map_only

from compress.errors import InputError
from compress.options import check, shown

_SORTS = "a tensor, a tuple or list of arguments, a dict of keyword arguments, or compress.Inputs(args, kwargs)"


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call, `model(*args, **kwargs)`.

    batch_dim: the dimension of the tensors that counts the samples; 1 for networks that take the length first.
    whole: whether no sample can be left out, because others refer to it by number, as edges refer to the nodes of a
        graph. A network that runs on all samples but not on two is treated in this way.

    Raises:
        InputError: `args` is not a tuple or list, `kwargs` not a dict with words as keys, or `batch_dim` below 0.
    """

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    batch_dim: int = 0
    whole: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.args, tuple | list):
            raise InputError(f"Inputs(args=...): found {shown(self.args)}; expected a tuple of arguments")
        if not isinstance(self.kwargs, Mapping) or not all(isinstance(key, str) for key in self.kwargs):
            raise InputError(f"Inputs(kwargs=...): found {shown(self.kwargs)}; expected a dict of keyword arguments")
        if type(self.batch_dim) is not int or self.batch_dim:  # a check takes as long as all the rest
            check("Inputs(batch_dim=...)", self.batch_dim, int, ge=0)
        if self.whole not in (False, True):
            check("Inputs(whole=...)", self.whole, bool)

    def call(self, model: Callable[..., Any]) -> Any:
        return model(*self.args, **self.kwargs)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in order."""
        if not self.kwargs and all(isinstance(one, Tensor) for one in self.args):
            return list(self.args)  # most calls, at each step of a training
        return [leaf for leaf in tree_flatten((tuple(self.args), dict(self.kwargs)))[0] if isinstance(leaf, Tensor)]

    @property
    def rows(self) -> int:
        """The number of samples."""
        return next(tensor.shape[self.batch_dim] for tensor in self.tensors if tensor.ndim > self.batch_dim)

    def part(self, rows: slice) -> "Inputs":
        """The same call with only these samples; a tensor without a dimension for samples does not change."""
        return self.mapped(lambda tensor: sliced(tensor, self.batch_dim_of(tensor), rows))

    def batch_dim_of(self, tensor: Tensor) -> int | None:
        """The dimension of one of the tensors that counts the samples; None if it has the same size in every batch.

        It is `batch_dim` if the size there is the number of samples. Otherwise the tensor may count
        them along its first dimension, or its second, as the states of recurrent layers do.
        """
        places = [self.batch_dim] if self.rows == 1 else [self.batch_dim, 0, 1]
        return next((place for place in places if tensor.ndim > place and tensor.shape[place] == self.rows), None)

    def mapped(self, function: Callable[[Tensor], Any]) -> "Inputs":
        """The same call with `function` applied to each tensor."""
        args, kwargs = tree_map_only(Tensor, function, (tuple(self.args), dict(self.kwargs)))
        return Inputs(args, kwargs, self.batch_dim, self.whole)

    def few(self, most: int = 2) -> "Inputs":
        """The same call with at most so many samples, or with all if it is `whole`."""
        if self.whole:
            return self
        places = {id(tensor): self.batch_dim_of(tensor) for tensor in self.tensors}

        def few(tensor: Tensor) -> Tensor:
            place = places[id(tensor)]
            return tensor if place is None else tensor.narrow(place, 0, min(most, self.rows))

        return self.mapped(few)

    def argument_names(self, model: nn.Module) -> dict[int | str, str]:
        """For each argument, by its position or keyword, the name that `model.forward` has for it; in forward's order.

        Of `forward(self, a, *rest, c)`, the arguments (x, y, c=z) are "a", "rest_0" and "c".
        """
        found: dict[int | str, str] = {}
        try:
            parameters = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        plain = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        rest = next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), "input")
        for number in range(len(self.args)):
            found[number] = plain[number] if number < len(plain) else f"{rest}_{number - len(plain)}"
        order = {one.name: place for place, one in enumerate(parameters)}
        keywords = sorted(self.kwargs, key=lambda key: order.get(key, len(order)))
        return found | dict(zip(keywords, keywords, strict=True))

    def argument(self, key: int | str) -> Any:
        return self.args[key] if isinstance(key, int) else self.kwargs[key]

    def names(self, model: nn.Module) -> list[str]:
        """A name for each of the tensors: the argument of `model.forward` that it is given for, and its place within.

        A network whose forward takes the arguments a and b has "a" and "b"; of a list [t, t] given for a, "a_0" and
        "a_1" are the tensors.
        """
        found: list[str] = []
        names = self.argument_names(model)
        for key in (*range(len(self.args)), *self.kwargs):
            paths = tree_flatten_with_path(self.argument(key))[0]
            leaves = [path for path, leaf in paths if isinstance(leaf, Tensor)]
            found += ["_".join([names[key], *map(_word, path)]) for path in leaves]
        return found

    def signature(self) -> Hashable:
        """Equal for calls that differ only in the values of their tensors and the number of samples."""
        leaves, structure = tree_flatten((tuple(self.args), dict(self.kwargs)))
        return structure, tuple(self._described(leaf) for leaf in leaves), self.batch_dim

    def _described(self, leaf: Any) -> Hashable:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        batch = self.batch_dim_of(leaf)
        sizes = tuple(-1 if place == batch else size for place, size in enumerate(leaf.shape))
        return sizes, leaf.dtype, leaf.device


def sliced(tensor: Tensor, dim: int | None, rows: slice) -> Tensor:
    """`rows` of a tensor along `dim`, without a copy; the whole tensor without one."""
    return tensor if dim is None else tensor[(slice(None),) * dim + (rows,)]


def inputs_of(example: object, what: str = "example") -> Inputs:
    """`example` as the arguments of a call.

    Args:
        what: the argument's name, for the error text.

    Raises:
        InputError: it is none of what the module's text names, or it has no tensor with a batch dimension and a row.
    """
    if isinstance(example, Inputs):
        given = example
    elif isinstance(example, Tensor):
        given = Inputs((example,))
    elif isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        given = Inputs((), dict(example))
    elif isinstance(example, tuple | list):
        given = Inputs(tuple(example))
    else:
        raise InputError(f"{what}: found {shown(example)}; expected {_SORTS}")
    _require(given, what)
    return given


def _require(given: Inputs, what: str) -> None:
    if not given.tensors:
        raise InputError(f"{what}: it holds no tensor; expected {_SORTS}")
    sized = [tensor for tensor in given.tensors if tensor.ndim > given.batch_dim]
    if not sized or sized[0].shape[given.batch_dim] == 0:
        shape = list((sized or given.tensors)[0].shape)
        raise InputError(f"{what}: its shape is {shape}; it needs a batch dimension with a row")


def _word(key: Any) -> str:
    """A step of a path into nested arguments, as a part of a name."""
    return "".join(letter if letter.isalnum() else "_" for letter in keystr((key,)).strip("[].'\""))
