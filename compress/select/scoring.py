"""What scores are computed from: the network, batches of scoring data, the loss, and chance."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.select.gradients import Batches
from compress.tasks import Loss

BatchSource = Batches | Callable[[int], Batches]
"""Batches of (input, target), as often as they are asked for; or a function that gives them in batches of a size."""

ScoreFunction = Callable[[Tensor], Tensor]
"""A criterion of the user's: a tensor of weights -> a score for each of its entries, larger = keep."""

EVALUATION_BATCH = 250  # larger ones only make convolutions slower and memory scarcer


@dataclass(frozen=True)
class Scoring:
    """The network that is scored, and what a criterion may look at.

    generator: of what is drawn by chance, on the CPU.
    source, function: the batches and the loss; None where the caller has given none.
    """

    model: nn.Module
    generator: torch.Generator
    source: BatchSource | None = None
    function: Loss | None = None

    def batches(self, asker: object, samples: int | Literal["all"], size: int = EVALUATION_BATCH) -> Batches:
        """The first `samples` samples in batches of at most `size`, on the network's device.

        Args:
            asker: what looks at them, for the error text.

        Raises:
            InputError: no batches were given, or they are not pairs of tensors.
        """
        if self.source is None:
            raise InputError(f"{_called(asker)} looks at data; give batches=..., an iterable of (input, target)")
        given = self.source if isinstance(self.source, Iterable) else self.source(size)
        return _first(_pairs(given, size, _device(self.model)), samples)

    def loss(self, asker: object) -> Loss:
        """(output, target) -> mean over the batch. Raises InputError: none was given."""
        if self.function is None:
            raise InputError(f"{_called(asker)} looks at the loss; give loss=..., a function of (output, target)")
        return self.function


def require_source(batches: object, loss: object) -> None:
    """Refuse batches that can be read only once, and what are neither batches nor a loss.

    Raises:
        InputError: they are something else than `Scoring` takes.
    """
    if isinstance(batches, Iterator):
        raise InputError(
            f"batches: found a {type(batches).__name__}, which can be read only once; give the loader itself, or a list"
        )
    if batches is not None and not callable(batches) and not hasattr(batches, "__iter__"):
        raise InputError(f"batches: found {type(batches).__name__}; expected an iterable of (input, target)")
    if loss is not None and (not callable(loss) or isinstance(loss, type)):
        raise InputError(f"loss: found {loss!r}; expected a function of (output, target), such as F.cross_entropy")


def _called(asker: object) -> str:
    word = getattr(asker, "word", None)
    return f"the criterion {word}" if word else str(asker)


def _device(model: nn.Module) -> torch.device | None:
    return next((parameter.device for parameter in model.parameters()), None)


def _pairs(batches: Batches, size: int, device: torch.device | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Larger batches come in equal parts: what is squared for each batch means the same whatever the loader's size."""
    for batch in batches:
        match batch:
            case [Tensor() as inputs, Tensor() as target]:
                parts = -(-len(inputs) // size) or 1
                for some, of in zip(inputs.tensor_split(parts), target.tensor_split(parts), strict=True):
                    yield some.to(device), of.to(device)
            case _:
                raise InputError(
                    f"batches: a batch is {type(batch).__name__}; expected a pair of tensors (input, target)"
                )


def _first(batches: Batches, samples: int | Literal["all"]) -> Batches:
    if samples == "all":
        yield from batches
        return
    left = int(samples)
    for inputs, target in batches:
        yield inputs[:left], target[:left]
        left -= len(inputs)
        if left <= 0:
            return
