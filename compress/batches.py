"""`Batches`: what training and evaluation iterate over; `pairs`: batches of any accepted form as (inputs, target).

A batch is a pair (input, target), a dict of keyword arguments with its target under "labels", or an input alone. The
input of a pair is whatever the network is called with: see `compress.inputs`.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from compress.errors import InputError
from compress.inputs import Inputs, inputs_of, sliced
from compress.options import shown

Subset = Literal["train", "validation", "test"]
"""The samples of a data set that a network learns from, those that settings are chosen on, or those that it is
evaluated on; a data set need not have the second."""

LABELS = "labels"
"""The keyword argument that is also the target, as in the batches of transformers."""

FORMS = (
    'a pair (input, target), a dict of keyword arguments with the target under "labels", or an input alone; an input '
    "is a tensor, a tuple or list of arguments, a dict of keyword arguments, or compress.Inputs(args, kwargs)"
)

Pair = tuple[Inputs, Any]


class Attributed(NamedTuple):
    """A target together with attributes of the same samples, which shape the latent space while nodes are pruned.

    target: what the network's output is compared with.
    attributes: by name the classes of the samples, whole numbers from 0, [N].
    """

    target: Any
    attributes: Mapping[str, Tensor]


Pairs = Iterable[Any]
"""Batches of any accepted form."""


class Batches(Protocol):
    """The batches of one subset of a data set: they can be iterated over repeatedly; the last may be smaller."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def __call__(self, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[tuple[Any, Any]]:
        """One epoch of (input, target), without its first `skip` batches; an input is anything `inputs_of` takes.

        The order is random exactly if a (CPU) generator is given. The random numbers of skipped batches are drawn too,
        before this returns.
        """
        ...


def pairs(batches: Pairs, model: nn.Module) -> Iterator[Pair]:
    """Each batch as the arguments that `model` is called with, and its target.

    `labels` are not among the arguments if the network's forward does not take them.

    Raises:
        InputError: as `pair_of`.
    """
    labelled = takes(model, LABELS)
    for batch in batches:
        given, target = pair_of(batch)
        yield given if labelled else without_labels(given), target


def pair_of(batch: object, what: str = "batches") -> Pair:
    """A batch as (inputs, target); the target is None where there is none.

    Args:
        what: where the batch is from, for the error text.

    Raises:
        InputError: it is of no accepted form, or holds no sample.
    """
    match batch:
        case Tensor() | Inputs():
            return inputs_of(batch, what), None
        case Mapping():
            given = inputs_of(batch, what)
            return given, given.kwargs.get(LABELS)
        case [inputs]:
            return inputs_of(inputs, what), None
        case [inputs, target]:
            return inputs_of(inputs, what), target
    found = f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else shown(batch)
    raise InputError(f"{what}: found {found}; a batch is {FORMS}")


def without_labels(given: Inputs) -> Inputs:
    if LABELS not in given.kwargs:
        return given
    return Inputs(
        given.args, {key: value for key, value in given.kwargs.items() if key != LABELS}, given.batch_dim, given.whole
    )


def takes(model: nn.Module, keyword: str) -> bool:
    """Whether the network's forward has an argument of that name, or takes any."""
    return any(one.name == keyword or one.kind is one.VAR_KEYWORD for one in _parameters(model))


def has_own_loss(model: nn.Module) -> bool:
    """Whether the network's forward takes a target, as networks do that return their loss."""
    named = (one.name for one in _parameters(model))
    return any("label" in name or "target" in name or name == "start_positions" for name in named)


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def tensors_of_target(target: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(target) if isinstance(leaf, Tensor)]


def part_of_target(target: Any, given: Inputs, rows: slice) -> Any:
    """The target of these samples alone, for the target of all samples of `given`; tensors may be nested in it."""
    return tree_map_only(Tensor, lambda tensor: sliced(tensor, samples_along(tensor, given), rows), target)


def samples_along(target: Tensor, given: Inputs) -> int | None:
    """The dimension of a target that counts the samples of `given`; None if it has none."""
    places = dict.fromkeys([given.batch_dim, 0])
    return next((place for place in places if target.ndim > place and target.shape[place] == given.rows), None)
