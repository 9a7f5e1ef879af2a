"""`Scoring`: what scores are computed from: the network, batches of scoring data, the loss, and random numbers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.batches import FORMS, Pair, Pairs, has_own_loss, pair_of, part_of_target, samples_along, tensors_of_target
from compress.errors import CompressError, InputError
from compress.options import shown
from compress.tasks import Loss, own_loss
from compress.tasks.linear import linear as linear_error

BatchSource = Pairs | Callable[[int], Pairs]
"""Batches that can be iterated over repeatedly, or a function from a batch size to such; see `compress.batches`."""

ScoreFunction = Callable[[Tensor], Tensor]
"""A criterion of the user's: a tensor of weights -> a score for each of its entries, larger = keep."""

EVALUATION_BATCH = 250  # larger ones only make convolutions slower and memory scarcer


@dataclass(frozen=True)
class Scoring:
    """The network that is scored, and what a criterion may look at.

    generator: of random scores, on the CPU.
    source, function: the batches and the loss; None where the caller has given none.
    """

    model: nn.Module
    generator: torch.Generator
    source: BatchSource | None = None
    function: Loss | None = None

    def batches(self, asker: object, samples: int | Literal["all"], size: int = EVALUATION_BATCH) -> Pairs:
        """The first `samples` samples in batches of at most `size`, on the network's device.

        Args:
            asker: what reads them, for the error text.

        Raises:
            InputError: no batches were given, or one of them has no accepted form.
        """
        self.require(asker, loss=False)
        assert self.source is not None
        given = self.source if isinstance(self.source, Iterable) else _given(self.source, size)
        return _first(_pieces(given, size, _device(self.model)), samples)

    def require(self, asker: object, *, data: bool = True, loss: bool = True) -> None:
        """Raises InputError where `asker` looks at data, or at the loss, and none was given."""
        if data and self.source is None:
            raise InputError(f"{_called(asker)} needs data; give batches=..., an iterable of (input, target)")
        if loss and self.function is None and not has_own_loss(self.model):
            raise InputError(f"{_called(asker)} needs the loss; give loss=..., a function of (output, target)")

    def loss(self, asker: object, *, linear: bool = False) -> Loss:
        """(output, target) -> mean over the batch: the caller's loss, or else the network's own, from its output.

        Args:
            linear: the linear error in its place.

        Raises:
            InputError: there is neither.
        """
        self.require(asker, data=False)
        function = self.function or own_loss
        return _mean_of(linear_error(function) if linear else function)


def require_source(batches: object, loss: object) -> None:
    """Refuse batches that can be read only once, and objects that are not batches or not a loss.

    Raises:
        InputError: `Scoring` does not take them.
    """
    if isinstance(batches, Iterator):
        raise InputError(
            f"batches: found a {type(batches).__name__}, which can be read only once; give the loader itself, or a list"
        )
    is_source = hasattr(batches, "__iter__") or callable(batches)
    if batches is not None and (not is_source or isinstance(batches, type | nn.Module | str | Mapping | Tensor)):
        raise InputError(
            f"batches: found {shown(batches)}; expected an iterable of batches, or a function from a batch size "
            f"to one; a batch is {FORMS}"
        )
    if loss is not None and (not callable(loss) or isinstance(loss, type)):
        raise InputError(f"loss: found {loss!r}; expected a function of (output, target), such as F.cross_entropy")


@contextmanager
def on_data(asker: object) -> Iterator[None]:
    """What the network says where it cannot compute with the batches comes as an InputError.

    Args:
        asker: what looks at them, for the error text.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise InputError(f"batches: {_called(asker)} cannot be computed on them: {_said(error)}") from error


def _given(source: Callable[[int], Pairs], size: int) -> Pairs:
    """The batches that the user's function gives for a batch size."""
    try:
        found = source(size)
    except Exception as error:  # a function of the user's own may raise anything
        raise InputError(f"batches: the function failed for the size {size}: {_said(error)}") from error
    if not isinstance(found, Iterable):
        raise InputError(f"batches: the function gave {type(found).__name__}; it must give batches of (input, target)")
    return found


def _mean_of(function: Loss) -> Loss:
    """The user's loss, refused with its own words where it fails or is not a mean."""

    def loss(output: object, target: object) -> Tensor:
        try:
            found = function(output, target)
        except CompressError:
            raise
        except Exception as error:
            what = "" if tensors_of_target(target) else f"; the target of these batches is {shown(target)}"
            raise InputError(f"loss: it failed: {_said(error)}{what}") from error
        if not isinstance(found, Tensor) or found.numel() != 1:
            what = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"loss: it gave {what}; it must give the mean over the batch, a tensor of one number")
        return found

    return loss


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _called(asker: object) -> str:
    word = getattr(asker, "word", None)
    return f"the criterion {word}" if word else str(asker)


def _device(model: nn.Module) -> torch.device | None:
    return next((parameter.device for parameter in model.parameters()), None)


def _pieces(batches: Pairs, size: int, device: torch.device | None) -> Iterator[Pair]:
    """Split larger batches into equal parts, so that squares per batch do not depend on the loader's batch size."""
    for batch in batches:
        if _is_empty(batch):
            continue
        given, target = pair_of(batch)
        if isinstance(target, Tensor) and samples_along(target, given) is None:
            shapes = f"{list(given.tensors[0].shape)} and {list(target.shape)}"
            raise InputError(f"batches: a batch has inputs and targets of {shapes}; the first number must be the same")
        moved = given.mapped(lambda tensor: tensor.to(device))
        target = tree_map_only(Tensor, lambda tensor: tensor.to(device), target)
        for rows in _parts(given.rows, size):
            yield (moved, target) if rows is None else (moved.part(rows), part_of_target(target, given, rows))


def _is_empty(batch: object) -> bool:
    return any(tensor.shape[:1] == (0,) for tensor in tensors_of_target(batch))


def _parts(samples: int, size: int) -> Iterator[slice | None]:
    """Parts of at most `size` samples that differ by one at most, the larger ones first; None is the whole."""
    parts = -(-samples // size)
    if parts == 1:
        yield None
        return
    least, more = divmod(samples, parts)
    start = 0
    for number in range(parts):
        end = start + least + (number < more)
        yield slice(start, end)
        start = end


def _first(batches: Iterable[Pair], samples: int | Literal["all"]) -> Iterator[Pair]:
    if samples == "all":
        yield from batches
        return
    left = int(samples)
    for given, target in batches:
        rows = slice(left)
        yield (given, target) if given.rows <= left else (given.part(rows), part_of_target(target, given, rows))
        left -= given.rows
        if left <= 0:
            return
